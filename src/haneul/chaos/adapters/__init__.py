"""What breaks things on this host, and mends them again."""
