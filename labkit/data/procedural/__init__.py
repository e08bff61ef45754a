"""Drawn products."""
