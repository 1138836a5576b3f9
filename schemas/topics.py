"""Topic names and what a partition's panes are staggered by. Names and encoding are the OpenTelemetry
Collector's Kafka exporter's.
"""

SPANS = "otlp_spans"
METRICS = "otlp_metrics"
LOGS = "otlp_logs"
DEAD_LETTER = "otlp_dead_letter"

TOPICS = (SPANS, METRICS, LOGS)


def pane_shift_ns(partition: int, partitions: int, pane_ns: int) -> int:
    """By how much a partition's pane boundaries lie after the multiples of ``pane_ns``, so that partitions do
    not close at once.
    """
    return pane_ns * partition // partitions


def pane_of(append_time_ns: int, shift_ns: int, pane_ns: int) -> int:
    """The number of the pane that a record of this log time belongs to (int, panes since 1970)."""
    return (append_time_ns - shift_ns) // pane_ns
