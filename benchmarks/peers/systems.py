"""How each system is started for each job: as processes of their own, on free ports of this machine."""

import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.peers import rotel as rotel_wheel
from benchmarks.peers.kafka import make_topic
from ingest.settings import IngestSettings
from schemas.topics import SPANS
from tests.support.collector.running import OTLP, Collector, kafka_exporter
from tests.support.kafka.fleet import ingest
from tests.support.up import ROOT, Up

KEPT_PERCENT = 2.0
PANE = "5s"
WAIT = 2
DECISION_WAIT_S = 10
"""As meshflow's: a trace is decided when WAIT panes have closed after its own, 10 to 15 s after its spans."""

_FLUSH_S = 10
_START_S = 90.0
_BATCH = 1_000
"""Spans that others gather for Kafka: about a MB."""

_MESHFLOW = f"""
[ingest]
grpc_port = 0
http_port = 0
{{receiver}}

[processing]
pane = "{PANE}"
wait = {WAIT}

[[sampling.policies]]
name = "some"
type = "probabilistic"
probabilistic = {{{{ sampling_percentage = {{percentage}} }}}}
"""


@dataclass(frozen=True, slots=True)
class Running:
    """A system that is ready."""

    pid: int
    target: str
    """``HOST:PORT`` of its OTLP/gRPC receiver."""
    received: Callable[[], int] | None = None
    """How many spans it has processed to the end, where it counts them; None: it is done when it is idle."""
    settle_s: float = 0.0
    """Idle after the last span, it may still have to do something within this time."""
    said: Callable[[], str] = str
    """Its log."""


RECEIVERS = ("native", "grpcio") if "receiver" in IngestSettings.model_fields else ("grpcio",)
"""Values of meshflow's setting ``ingest.receiver`` that this version has, besides ``auto``."""


@contextmanager
def meshflow_receive(folder: Path, receiver: str) -> Iterator[Running]:
    """Receivers, splitting and gathering in front of a log that forgets."""
    yield from _part(folder, "receive", receiver)


@contextmanager
def meshflow_process(folder: Path, receiver: str, percentage: float) -> Iterator[Running]:
    """Receivers, durable log and processing in front of a store that forgets."""
    yield from _part(folder, "process", receiver, percentage)


@contextmanager
def meshflow_ingest(folder: Path, receiver: str, kafka: str, prefix: str) -> Iterator[Running]:
    """``meshflow ingest``."""
    command = ingest(folder, f"kafka://{kafka}/{prefix}", _config(receiver))
    command.launch()
    assert command.process is not None
    try:
        yield Running(command.process.pid, command.wait_for(r"OTLP/gRPC +(\S+)"), said=command.output)
    finally:
        command.stop(signal.SIGKILL)


@contextmanager
def meshflow_up(folder: Path, receiver: str) -> Iterator[Running]:
    """``meshflow up``: durable log, processing, storage."""
    up = Up(folder, _config(receiver))
    try:
        up.start()
        yield Running(up.pid, up.grpc, lambda: up.ledger()["received"], said=(folder / "up.log").read_text)
    finally:
        up.stop(signal.SIGKILL)


def _config(receiver: str, percentage: float = KEPT_PERCENT) -> str:
    chosen = f'receiver = "{receiver}"' if len(RECEIVERS) > 1 else ""
    return _MESHFLOW.format(receiver=chosen, percentage=percentage)


def _part(folder: Path, part: str, receiver: str, percentage: float = KEPT_PERCENT) -> Iterator[Running]:
    config, said = folder / "meshflow.toml", folder / "meshflow.log"
    config.write_text(f'{_config(receiver, percentage)}\n[storage]\ndata = "{folder / "data"}"\n')
    command = [sys.executable, "-m", "benchmarks.peers.parts", part, "--config", str(config)]

    def number(word: str) -> int:
        return int((re.findall(rf"^{word} (\d+)$", said.read_text(), re.MULTILINE) or ["0"])[-1])

    with _process(command, said) as process:
        _wait(lambda: number("grpc") > 0, process, said)
        received = (lambda: number("received")) if part == "process" else None
        yield Running(process.pid, f"127.0.0.1:{number('grpc')}", received, said=said.read_text)


@contextmanager
def collector(
    folder: Path, pipelines: dict[str, Any], settle_s: float = 0.0, **parts: Any
) -> Iterator[Running]:
    """A Collector with an ``otlp`` receiver and these pipelines; ``parts`` are the other sections."""
    config = {**parts, "receivers": {"otlp": OTLP}, "service": {"pipelines": pipelines}}
    running = Collector(folder, config)
    try:
        running.__enter__()
        yield Running(running.pid, running.grpc, settle_s=settle_s, said=running.output)
    finally:
        running.stop(signal.SIGKILL)


def collector_receive(folder: Path) -> Any:
    """Receiver to nop exporter."""
    return collector(folder, {"traces": {"receivers": ["otlp"], "exporters": ["nop"]}}, exporters={"nop": {}})


def collector_kafka(folder: Path, kafka: str, prefix: str) -> Any:
    """Receiver to Kafka, in batches, a record for each trace of one; senders are answered when their spans
    are in the exporter's queue.
    """
    make_topic(kafka, prefix)
    queue = {
        "block_on_overflow": True,
        "sizer": "items",
        "queue_size": 50_000,
        "batch": {"flush_timeout": "200ms", "min_size": _BATCH},
    }
    exporters = {"kafka": kafka_exporter(kafka, prefix, partition_traces_by_id=True, sending_queue=queue)}
    return collector(folder, {"traces": {"receivers": ["otlp"], "exporters": ["kafka"]}}, exporters=exporters)


_SPAN_METRICS = {
    "span_metrics": {
        "histogram": {"exponential": {"max_size": 160}},
        "dimensions": [
            {"name": name}
            for name in ("http.status_code", "response_flags", "envoy.route", "service.version")
        ],
        "exclude_dimensions": ["collector.instance.id"],
        "aggregation_temporality": "AGGREGATION_TEMPORALITY_DELTA",
        "metrics_flush_interval": f"{_FLUSH_S}s",
    }
}
_RED = {
    "traces/red": {"receivers": ["otlp"], "exporters": ["span_metrics"]},
    "metrics": {"receivers": ["span_metrics"], "exporters": ["nop"]},
}


def collector_red(folder: Path) -> Any:
    """Span metrics by about the dimensions of meshflow's RED tables, every 10 s, to nop exporter."""
    return collector(folder, _RED, _FLUSH_S + 1, connectors=_SPAN_METRICS, exporters={"nop": {}})


def collector_tail(folder: Path) -> Any:
    """The same, and tail sampling, to nop exporter."""
    some = {"name": "some", "type": "probabilistic", "probabilistic": {"sampling_percentage": KEPT_PERCENT}}
    sampling = {
        "decision_wait": f"{DECISION_WAIT_S}s",
        "num_traces": 400_000,
        "expected_new_traces_per_sec": 10_000,
        "policies": [some],
    }
    tail = {"receivers": ["otlp"], "processors": ["tail_sampling"], "exporters": ["nop"]}
    processors = {"tail_sampling": sampling}
    pipelines = {**_RED, "traces/tail": tail}
    settle_s = max(_FLUSH_S, DECISION_WAIT_S) + 2
    return collector(
        folder, pipelines, settle_s, connectors=_SPAN_METRICS, processors=processors, exporters={"nop": {}}
    )


def rotel_receive(folder: Path) -> Any:
    """Receiver to blackhole exporter."""
    return _rotel(folder, "--exporter", "blackhole")


def rotel_kafka(folder: Path, kafka: str, prefix: str) -> Any:
    """Receiver to Kafka, batched, not by trace id: it cannot; the sender is answered before."""
    make_topic(kafka, prefix)
    batch = f"--batch-max-size={_BATCH}"  # its own 8,192 would be a record of 8 MB
    options = {
        "brokers": kafka,
        "traces-topic": prefix + SPANS,
        "format": "protobuf",
        "compression": "zstd",
        "acks": "all",
    }
    options["max-message-bytes"] = str(4 << 20)
    return _rotel(
        folder,
        batch,
        "--exporter",
        "kafka",
        *(f"--kafka-exporter-{name}={value}" for name, value in options.items()),
    )


@contextmanager
def _rotel(folder: Path, *options: str) -> Iterator[Running]:
    said = folder / "rotel.log"
    target, other = f"127.0.0.1:{_free_port()}", f"127.0.0.1:{_free_port()}"
    ports = [
        f"--otlp-grpc-endpoint={target}",
        f"--otlp-http-endpoint={other}",
        "--otlp-grpc-max-recv-msg-size-mib=64",
    ]
    with _process(
        [str(rotel_wheel.install()), "start", f"--pid-file={folder / 'rotel.pid'}", *ports, *options], said
    ) as process:
        _wait(lambda: _answers(target), process, said)
        yield Running(process.pid, target, said=said.read_text)


@contextmanager
def _process(command: Sequence[str], said: Path) -> Iterator[subprocess.Popen[bytes]]:
    with said.open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=ROOT)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _wait(happened: Callable[[], bool], process: subprocess.Popen[bytes], said: Path) -> None:
    end_s = time.monotonic() + _START_S
    while not happened():
        if process.poll() is not None or time.monotonic() > end_s:
            raise RuntimeError(f"it did not start: {said.read_text()[-2000:]}")
        time.sleep(0.05)


def _answers(target: str) -> bool:
    host, _, port = target.partition(":")
    with suppress(OSError), socket.create_connection((host, int(port)), 1):
        return True
    return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
