"""This machine: what it can do, and the host services that run on it outside every cluster."""
