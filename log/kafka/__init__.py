"""The log on Kafka: writer, topics, consumer, dead letters. The only package that knows aiokafka."""
