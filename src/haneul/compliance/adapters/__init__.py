"""Where reports of checks are kept."""
