"""Tail sampling without state: policies, per-pane trace summaries, decisions."""
