"""Synthetic defects painted on normal images."""
