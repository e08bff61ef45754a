"""Invertible steps, flows made of them, and likelihoods."""
