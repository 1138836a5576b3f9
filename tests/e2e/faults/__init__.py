"""The distributed system under faults."""
