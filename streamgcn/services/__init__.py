"""The broker and the Redis that StreamGCN starts by itself, for a laptop and the tests."""
