"""The DNS servers that records are published to."""
