"""The stages of spans."""
