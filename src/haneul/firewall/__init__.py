"""The firewall gate: a person lets each node reach what only registered addresses may reach."""
