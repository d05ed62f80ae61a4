"""Isolation and self-healing, proven by breaking things: faults, an outage ledger, and promises that are held to it.

Pure: :mod:`faults` (the catalogue), :mod:`plan` (what is broken together, in which order), :mod:`ledger` (arithmetic of
questions and answers), :mod:`verdicts` (promises kept or not), :mod:`report`. Doing: :mod:`run`, :mod:`prober`,
:mod:`writing`, over the ports of :mod:`ports`. What really breaks processes, networks and disks is in ``adapters``.
"""
