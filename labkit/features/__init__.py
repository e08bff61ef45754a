"""Frozen backbones and the feature cache: images -> Features, once."""
