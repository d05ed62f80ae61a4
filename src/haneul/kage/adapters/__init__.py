"""How Kage reaches Swift: its processes, and its HTTP."""
