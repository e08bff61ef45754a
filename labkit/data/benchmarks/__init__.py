"""Readers of the published benchmarks."""
