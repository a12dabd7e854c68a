"""From edge to embedding: the grown user-item graph becomes a versioned model snapshot."""
