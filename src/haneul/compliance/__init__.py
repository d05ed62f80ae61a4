"""Our own clusters held against the CIS Kubernetes Benchmark, item by item."""
