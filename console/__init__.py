"""The way in for people and their tools: SQL over HTTP as ClickHouse speaks it, and meshflow's own
metrics.
"""
