"""Benchmarks: what the promises of the design come to, measured from outside, beside a peer in the same run."""
