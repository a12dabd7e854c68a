"""A log of events played again, to measure what users would have read at each moment."""
