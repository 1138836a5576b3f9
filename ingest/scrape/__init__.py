"""Prometheus' pages of targets, asked for at intervals and sent to a receiver as OTLP."""
