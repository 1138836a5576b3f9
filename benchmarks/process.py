"""What processing costs: a partition's records to blocks, as ``up`` does it.

A million spans as ``benchmarks.load`` makes them (21 attributes, about 930 bytes), 50,000 a second over 4
partitions, gathered for 50 ms and packed as the SQLite log does. Default settings but for sampling, which
keeps 2 % (``default policies``: the defaults). ``whole``: unpacking, decoding, copies, RED, edges, sampling,
rows of kept spans, ledger. ``RED, edges, sampling``: of that what neither unpacks nor decodes nor makes rows
of kept spans.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from benchmarks.load import generate_requests
from benchmarks.report import Case, Measurement, main, measure
from processors.settings import ProcessorSettings
from processors.spans import traces
from processors.spans.sampling.options import ProbabilisticOptions
from processors.spans.sampling.policies import Probabilistic
from processors.spans.sampling.settings import SamplingSettings
from processors.spans.signal import span_processor
from schemas import otlp, topics
from schemas.records import Record, TopicPartition
from schemas.units import NS_PER_S

PARTITIONS = 4
SPANS_PER_S = 50_000
SPANS_PER_REQUEST = 200
GATHER_REQUESTS = 12  # 50 ms
RECORDS_PER_FEED = 25  # what a read of 16 MiB gives
START_NS = 1_800_000_000 * NS_PER_S
TWO_PER_CENT = SamplingSettings(
    policies=(
        Probabilistic(
            name="two-per-cent",
            type="probabilistic",
            probabilistic=ProbabilisticOptions(sampling_percentage=2),
        ),
    )
)
OUTSIDE = {"decode_spans": otlp, "write_traces": traces}
"""What is not RED, edges or sampling: functions and their modules."""


def whole(spans: int, services: int, operations: int, *, defaults: bool = False) -> Measurement:
    """Everything between the log and the sink."""
    logs = _logs(spans, services, operations)
    rows: dict[str, int] = {}
    with measure(spans) as measurement:
        _process(logs, SamplingSettings() if defaults else TWO_PER_CENT, rows)
    counts = ", ".join(f"{rows.get(table, 0)} {table}" for table in ("red_10s", "edges_10s", "otel_traces"))
    measurement.note = f"rows: {counts}"
    return measurement


def stages(spans: int, services: int, operations: int) -> Measurement:
    """The same without OUTSIDE."""
    logs = _logs(spans, services, operations)
    with _outside() as outside, measure(spans) as measurement:
        _process(logs, TWO_PER_CENT, {})
    measurement.cpu_s -= sum(outside.values())
    measurement.note = (
        "left out: "
        + ", ".join(f"{name} {cpu_s / spans * 1e6:.2f}" for name, cpu_s in outside.items())
        + " s"
    )
    return measurement


def _process(logs: list[list[Record]], sampling: SamplingSettings, rows: dict[str, int]) -> None:
    for partition, log in enumerate(logs):
        processor = span_processor(
            TopicPartition(topics.SPANS, partition), ProcessorSettings(partitions=PARTITIONS), sampling
        )
        for begin in range(0, len(log), RECORDS_PER_FEED):
            for emit in processor.feed(log[begin : begin + RECORDS_PER_FEED]):
                for block in emit.blocks:
                    rows[block.table] = rows.get(block.table, 0) + block.rows.num_rows


def _logs(spans: int, services: int, operations: int) -> list[list[Record]]:
    """The records of each partition, and a tick that settles them."""
    logs: list[list[Record]] = [[] for _ in range(PARTITIONS)]
    requests = generate_requests(
        spans, services, operations, SPANS_PER_REQUEST, 1, now_ns=START_NS, spans_per_s=SPANS_PER_S
    )
    sent = 0
    for gather in _gathers(requests):
        sent += len(gather) * SPANS_PER_REQUEST
        time_ns = START_NS + sent * NS_PER_S // SPANS_PER_S
        parts = [otlp.split(topics.SPANS, request, PARTITIONS).parts for request in gather]
        for partition, log in enumerate(logs):
            value = b"".join(part.get(partition, b"") for part in parts)
            log.append(
                Record(len(log), time_ns, pa.compress(value, codec="lz4", asbytes=True), len(value), "lz4")
            )
    for log in logs:
        log.append(Record(len(log), START_NS + 900 * NS_PER_S, b"", 0))
    return logs


def _gathers(requests: Iterator[bytes]) -> Iterator[list[bytes]]:
    gather: list[bytes] = []
    for request in requests:
        gather.append(request)
        if len(gather) == GATHER_REQUESTS:
            yield gather
            gather = []
    yield gather


@contextmanager
def _outside() -> Iterator[dict[str, float]]:
    """CPU seconds of the stages in OUTSIDE, taken while the body runs."""
    taken = dict.fromkeys(OUTSIDE, 0.0)
    originals = {name: getattr(module, name) for name, module in OUTSIDE.items()}

    def timed(name: str, stage: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **named: Any) -> Any:
            begin_s = time.process_time()
            result = stage(*arguments, **named)
            taken[name] += time.process_time() - begin_s
            return result

        return run

    for name, stage in originals.items():
        setattr(OUTSIDE[name], name, timed(name, stage))
    try:
        yield taken
    finally:
        for name, stage in originals.items():
            setattr(OUTSIDE[name], name, stage)


SMALL = {"spans": 1_000_000, "services": 100, "operations": 10}
LARGE = {"spans": 1_000_000, "services": 10_000, "operations": 10}
CASES = [
    Case("RED, edges, sampling; 100 services", "meshflow", stages, SMALL),
    Case("RED, edges, sampling; 10,000 services", "meshflow", stages, LARGE),
    Case("processing, whole; 100 services", "meshflow", whole, SMALL),
    Case("processing, whole; 10,000 services", "meshflow", whole, LARGE),
    Case("processing, whole, default policies; 100 services", "meshflow", whole, {**SMALL, "defaults": True}),
]

if __name__ == "__main__":
    main("Processing", CASES)
