"""The command line: talks only to the platform's API, and composes what runs on this host."""
