"""The OTLP/HTTP receiver."""
