"""Proxies that serve what a cluster's Ingress objects ask for."""
