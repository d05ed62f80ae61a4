"""Continuous backup of clusters: snapshots of their etcd and all changes between them, proven by drills, restored."""
