"""Ablations: a YAML file becomes jobs, results, a table and a figure."""
