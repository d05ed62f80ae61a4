"""The programs that run on a machine: shell scripts, sent as they are."""
