"""A user's edges -> the ranked list."""
