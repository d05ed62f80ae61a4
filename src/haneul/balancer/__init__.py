"""Load balancers outside clusters: what Services of type LoadBalancer ask for, on machines that outlive the cluster."""
