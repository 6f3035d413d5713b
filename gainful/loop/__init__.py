"""Improve: search on dev, one confirmation on the hold-out, a receipt."""
