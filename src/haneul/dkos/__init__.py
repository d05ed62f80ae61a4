"""DKOS: Kubernetes as a service. Everyone gets an own cluster with own masters."""
