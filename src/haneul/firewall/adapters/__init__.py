"""Where approvals lie, and the firewalls that are told of them."""
