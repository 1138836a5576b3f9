"""Receivers of OTLP and the group commit in front of the log."""
