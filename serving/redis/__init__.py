"""The lists' home: the keys, the connection, what the server tells of itself."""
