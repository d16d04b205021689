"""Scans that a trained study has not seen: a model to share, and what it says about them."""
