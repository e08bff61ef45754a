"""Instruments to look inside a trained flow."""
