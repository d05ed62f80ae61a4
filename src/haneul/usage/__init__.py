"""Usage over time: what each project's clusters had, for how long."""
