"""Exact differences of two texts, and of two JSON values."""
