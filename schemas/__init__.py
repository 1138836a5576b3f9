"""What flows through meshflow: Arrow schemas, OTLP decode and split, topics, attribute names, protocols,
errors, self-metrics.
"""
