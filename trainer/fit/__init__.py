"""Choosing, training and measuring a model on held-out edges."""
