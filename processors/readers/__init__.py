"""How records come to processing: in this process, or with Faust from Kafka."""
