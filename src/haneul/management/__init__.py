"""The management cluster: the real Kubernetes that runs the tenants' masters and the platform's own services."""
