"""The load balancers that Services are served by."""
