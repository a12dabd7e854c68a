"""The users' edges, in the order in which they came."""
