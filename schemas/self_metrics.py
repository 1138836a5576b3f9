"""Every metric of meshflow itself (Prometheus names; docs/self-metrics.md is tested against
this file).
"""

from prometheus_client import Counter, Gauge, Histogram, disable_created_metrics

disable_created_metrics()  # type: ignore[no-untyped-call]  # each counter would come with a second series of when it began

REQUESTS = Counter(
    "meshflow_ingest_requests",
    "Export requests by protocol (grpc, http), topic and status.",
    ["protocol", "topic", "status"],
)
ITEMS = Counter(
    "meshflow_ingest_items", "Spans, data points and log records accepted into the log, by topic.", ["topic"]
)
REJECTED = Counter(
    "meshflow_ingest_rejected_items",
    "Items refused as invalid, with an answer to their sender, by topic.",
    ["topic"],
)
REPAIRED = Counter(
    "meshflow_ingest_repaired",
    "Texts that were not UTF-8 and values that nested too deep, accepted into the log with U+FFFD or a mark, by topic.",
    ["topic"],
)
REFUSED = Counter(
    "meshflow_ingest_refused_items",
    "Items turned away because the log was full or away, by topic.",
    ["topic"],
)
UNREAD = Counter(
    "meshflow_ingest_unread_requests",
    "Export requests turned away before they were read, as too much was being received (max_receiving; of how many items is not known).",
    ["protocol", "topic"],
)
UNAUTHENTICATED = Counter(
    "meshflow_ingest_unauthenticated",
    "Export requests without a token that holds, by protocol and reason (no_token, not_bearer, unknown_token).",
    ["protocol", "reason"],
)
CONNECTIONS = Gauge("meshflow_ingest_connections", "Open gRPC connections of the native receiver.")
CONNECTIONS_REFUSED = Counter(
    "meshflow_ingest_refused_connections", "gRPC connections closed at once, by max_connections."
)
HTTP_CONNECTIONS_REFUSED = Counter(
    "meshflow_ingest_refused_http_connections", "HTTP connections closed at once, by max_http_connections."
)
HTTP_MALFORMED = Counter(
    "meshflow_ingest_malformed_http_requests",
    "Requests that are not well-formed HTTP/1.1, answered with 400 (OTLP/HTTP).",
)
ACCEPT_ERRORS = Counter(
    "meshflow_ingest_accept_errors",
    "gRPC connections that could not be accepted (native; out of files, mostly).",
)
CREDENTIALS_BROKEN = Gauge(
    "meshflow_ingest_credentials_broken",
    "1 while a changed file of certificates or tokens cannot be used and the old ones hold.",
)
GATHER_BYTES = Gauge(
    "meshflow_ingest_gather_bytes", "Bytes waiting to be appended to the log or being appended."
)
APPEND_SECONDS = Histogram("meshflow_log_append_seconds", "Time until a gather was durable in the log.")
SPOOLED_RECORDS = Counter(
    "meshflow_spool_records_taken", "Records that went to the spool since Kafka did not take them in time."
)
SPOOL_RECORDS = Gauge("meshflow_spool_records", "Records in this process's spool that are not in Kafka yet.")
SPOOL_BYTES = Gauge("meshflow_spool_bytes", "Bytes of this process's spool on disk.")
SPOOL_AGE_SECONDS = Gauge(
    "meshflow_spool_age_seconds", "How long the oldest record has been in the spool; 0: it is empty."
)
SPOOL_LOST_RECORDS = Counter("meshflow_spool_lost_records", "Records of a spool that were damaged on disk.")
RESTARTS = Counter(
    "meshflow_up_restarts",
    "How often `up` started its second process (processing, SQL) again after a crash, a hang or a lack of memory.",
)
LAG_RECORDS = Gauge(
    "meshflow_process_lag_records", "Records of a partition that are not read yet.", ["topic", "partition"]
)
PANE = Gauge(
    "meshflow_process_pane",
    "Number of the next pane to decide (log time by the length of a pane).",
    ["topic", "partition"],
)
PANES = Counter("meshflow_process_panes", "Panes emitted, by topic.", ["topic"])
DECISION_DELAY_SECONDS = Gauge(
    "meshflow_process_decision_delay_seconds",
    "Newest log time read minus the end of the last decided pane.",
    ["topic", "partition"],
)
RECORDS_AHEAD = Counter(
    "meshflow_process_records_ahead",
    "Records stamped far ahead of the records around them, which were processed as of their predecessor's time, by topic.",
    ["topic"],
)
DEAD_LETTERS = Counter(
    "meshflow_process_dead_letters",
    "Records set aside because they could not be processed, by topic.",
    ["topic"],
)
DEAD_LETTERS_GIVEN_UP = Counter(
    "meshflow_process_dead_letters_given_up",
    "Of these, those that Kafka refused for good (the record stays in its topic).",
    ["topic"],
)
REPARTITIONED = Counter(
    "meshflow_repartition_items",
    "Spans, data points and log records that `repartition` split, by topic.",
    ["topic"],
)
BLOCKS = Counter("meshflow_store_blocks", "Blocks written, by table.", ["table"])
ROWS = Counter("meshflow_store_rows", "Rows written, by table (repeated blocks count again).", ["table"])
RETRIES = Counter("meshflow_store_retries", "Inserts tried again because the database was away.")
JOB_PORTIONS = Counter(
    "meshflow_job_portions",
    "Portions of work that jobs behind the watermark did (roll-ups), by job.",
    ["job"],
)
JOB_FAILURES = Counter(
    "meshflow_job_failures", "Runs of such jobs that failed and are made again, by job.", ["job"]
)
QUERIES = Counter("meshflow_sql_queries", "Queries answered over HTTP, by status code.", ["status"])
SQL_CONNECTIONS = Gauge("meshflow_sql_connections", "Open connections of the port of SQL or /metrics.")
SQL_CONNECTIONS_REFUSED = Counter(
    "meshflow_sql_refused_connections",
    "Connections of the port of SQL or /metrics closed at once, by console.max_connections.",
)
SQL_UNREAD = Counter(
    "meshflow_sql_unread_answers",
    "Answers dropped as their clients did not read them in time (console.client_timeout).",
)
SQL_FOREIGN = Counter(
    "meshflow_sql_foreign_requests",
    "Requests refused for their Host, Origin or Sec-Fetch-Site (console.hosts).",
)
SQL_MALFORMED = Counter(
    "meshflow_sql_malformed_requests",
    "Requests to the port of SQL or /metrics that are not HTTP, answered with 400.",
)
SCRAPES = Counter(
    "meshflow_scrape_pages",
    "Pages of `meshflow scrape` that were asked for, by outcome (ok, failed).",
    ["outcome"],
)
SCRAPE_SAMPLES = Counter("meshflow_scrape_samples", "Samples of pages that were scraped.")
SCRAPES_UNSENT = Counter(
    "meshflow_scrape_unsent_pages",
    "Pages that the receiver did not take; the next ones have what counters gained.",
)
SCRAPE_TARGETS = Gauge("meshflow_scrape_targets", "Targets of `meshflow scrape`.")
