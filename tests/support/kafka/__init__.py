"""A real Kafka, and what runs on it."""
