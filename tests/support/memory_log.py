"""A log in memory that keeps LogWriter's contract and can be made to fail and to hang: fault injection."""

import asyncio
from collections.abc import Callable, Sequence

from opentelemetry.proto.logs.v1.logs_pb2 import LogsData
from opentelemetry.proto.metrics.v1.metrics_pb2 import MetricsData
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from schemas import topics
from schemas.records import Append


class MemoryLog:
    """``appended`` is what is durable, in order; ``fault`` is asked for each append's error; cleared,
    ``open`` makes appends wait.
    """

    def __init__(self, fault: Callable[[], Exception | None] = lambda: None) -> None:
        self.appended: list[Append] = []
        self.calls = 0
        self.fault = fault
        self.open = asyncio.Event()
        self.open.set()
        self.called = asyncio.Event()
        self.closed = False

    async def append(self, appends: Sequence[Append]) -> None:
        assert not self.closed
        self.calls += 1
        self.called.set()
        error = self.fault()
        await self.open.wait()
        await asyncio.sleep(0)
        if error is not None:
            raise error
        self.appended += appends

    async def tick(self, silent_ns: int) -> None:
        """Nothing here reads panes."""

    async def close(self) -> None:
        self.closed = True

    def counts(self, name: str, topic: str = topics.SPANS) -> int:
        """Sum of a header."""
        return sum(append.headers.get(name, 0) for append in self.appended if append.tp.topic == topic)

    def span_ids(self) -> list[bytes]:
        """Every span's id, copies included."""
        return [
            span.span_id
            for append in self._of(topics.SPANS)
            for resource in TracesData.FromString(append.value).resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def log_bodies(self) -> list[str]:
        """Every log record's text."""
        return [
            record.body.string_value
            for append in self._of(topics.LOGS)
            for resource in LogsData.FromString(append.value).resource_logs
            for scope in resource.scope_logs
            for record in scope.log_records
        ]

    def metric_names(self) -> list[str]:
        """Every metric's name."""
        return [
            metric.name
            for append in self._of(topics.METRICS)
            for resource in MetricsData.FromString(append.value).resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        ]

    def _of(self, topic: str) -> list[Append]:
        return [append for append in self.appended if append.tp.topic == topic]
