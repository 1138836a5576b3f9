"""ClickHouse's HTTP interface: requests, answers, the Native format, compressed blocks."""
