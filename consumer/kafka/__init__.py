"""Kafka; the only folder that imports the Kafka client."""
