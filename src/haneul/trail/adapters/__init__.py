"""Folders, object stores, catalogues and nginx: what the trail reaches outside of itself."""
