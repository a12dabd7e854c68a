"""Edges -> the weighted user-item graph."""
