"""The stages of data points."""
