"""Service edges: who called whom."""
