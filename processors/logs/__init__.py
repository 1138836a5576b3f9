"""The stages of log records."""
