"""Where data rests: the embedded log (one SQLite file) and the tables (ClickHouse: a server, or chdb in
process).
"""
