"""Names outside clusters: what a cluster's DNS would answer, published to servers that outlive the cluster."""
