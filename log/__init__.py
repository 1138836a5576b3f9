"""The durable log: on SQLite or on Kafka, with the spool in front of Kafka."""
