"""The tables (ClickHouse: a server, or chdb in process): blocks in, SQL answered, and jobs over the store."""
