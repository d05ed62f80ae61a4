"""DKOS meets the world: one module a technology."""
