"""From event to edge: Kafka messages become rows of the edge store, each exactly once."""
