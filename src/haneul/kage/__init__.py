"""Kage: a distributed object store with an S3 API, on OpenStack Swift."""
