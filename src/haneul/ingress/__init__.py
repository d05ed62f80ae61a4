"""Ingress: a cluster's Ingress objects, served by stock nginx outside the cluster's masters."""
