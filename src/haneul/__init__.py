"""Haneul: a private container cloud around real upstream components."""
