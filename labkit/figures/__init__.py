"""Figures that several parts of the lab draw."""
