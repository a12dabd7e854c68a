"""The page: what StreamGCN does now, and a box for a user and an item, in a browser."""
