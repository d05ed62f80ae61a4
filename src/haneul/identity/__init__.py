"""Who may do what: people, projects, roles, tokens, and the record of every change."""
