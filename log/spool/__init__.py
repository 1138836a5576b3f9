"""Where appends are kept on disk while Kafka is away."""
