"""A receiver in a process of its own, in front of a SQLite log: to be stopped, started again, and measured.

``python -m tests.support.served FOLDER SETTINGS`` is that process: SETTINGS are ``[ingest]`` in JSON;
ports.json in FOLDER says where it listens; SIGTERM stops it as it stops ``meshflow ingest``. ``faults`` in
SETTINGS is the seed of a log that fails at random.
"""

import asyncio
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Self

from opentelemetry.proto.logs.v1.logs_pb2 import LogsData
from opentelemetry.proto.metrics.v1.metrics_pb2 import MetricsData
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from ingest.server import IngestServer
from ingest.settings import IngestSettings
from log.sqlite.reader import SqliteLogReader
from log.sqlite.retention import Limits
from log.sqlite.writer import SqliteLogWriter
from schemas import topics
from schemas.errors import LogFull, LogUnavailable
from schemas.records import Append, Record, TopicPartition

ROOT = Path(__file__).parents[2]
PARTITIONS = 4
LONG_S = 90.0
"""How long anything that must happen may take on a busy machine."""


class Served:
    """The process, and what its log has. A context manager that kills it at the end."""

    def __init__(
        self,
        folder: Path,
        receiver: str = "grpcio",
        faults: int | None = None,
        partitions: int = PARTITIONS,
        ulimit: str = "",
        **settings: Any,
    ) -> None:
        self.folder = folder
        self.receiver = receiver
        self.grpc_port = 0
        self.http_port = 0
        self._settings = {"receiver": receiver, "drain_time": "30s", "retry_after": "50ms", **settings}
        self._partitions = partitions
        self._faults = faults
        self._ulimit = ulimit
        self._starts = 0
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop(signal.SIGKILL)

    def start(self) -> Self:
        """Start the process, on the ports it had before, and wait until it listens."""
        ports = self.folder / "ports.json"
        ports.unlink(missing_ok=True)
        self._starts += 1
        settings = {**self._settings, "grpc_port": self.grpc_port, "http_port": self.http_port}
        settings["partitions"] = self._partitions
        if self._faults is not None:
            settings["faults"] = self._faults + self._starts
        command = [sys.executable, "-m", "tests.support.served", str(self.folder), json.dumps(settings)]
        if self._ulimit:  # "-n 700"
            command = ["sh", "-c", f'ulimit {self._ulimit} && exec "$@"', "sh", *command]
        with (self.folder / "served.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT)
        eventually(lambda: self._is_ready(ports), f"the receiver listens, see {self.folder / 'served.log'}")
        found = json.loads(ports.read_bytes())
        self.grpc_port, self.http_port = found["grpc"], found["http"]
        return self

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Ask the process to end; its exit code."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(how)
        return self._process.wait(LONG_S)

    @property
    def target(self) -> str:
        """``HOST:PORT`` of OTLP/gRPC."""
        return f"127.0.0.1:{self.grpc_port}"

    @property
    def said(self) -> str:
        """What the process wrote on its standard error."""
        return (self.folder / "served.log").read_text(errors="replace")

    def rss_bytes(self) -> int:
        """Memory of the process that is resident now."""
        assert self._process is not None
        pages = Path(f"/proc/{self._process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def forget_peak(self) -> None:
        """From now on :meth:`peak_bytes` counts."""
        assert self._process is not None
        Path(f"/proc/{self._process.pid}/clear_refs").write_text("5")

    def peak_bytes(self) -> int:
        """The most memory that was resident at once."""
        assert self._process is not None
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmHWM"))

    def limit_files(self, limit: int) -> None:
        """How many files the process may have open from now on."""
        assert self._process is not None
        _, hard = resource.prlimit(self._process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(self._process.pid, resource.RLIMIT_NOFILE, (limit, hard))

    def open_files(self) -> int:
        """How many the process has open."""
        assert self._process is not None
        return len(list(Path(f"/proc/{self._process.pid}/fd").iterdir()))

    def open_sockets(self) -> int:
        """How many sockets the process has open."""
        assert self._process is not None
        links = Path(f"/proc/{self._process.pid}/fd")
        return sum(_link(link).startswith("socket:") for link in links.iterdir())

    def span_ids(self) -> list[bytes]:
        """The id of every span in the log, copies included."""
        return [
            span.span_id
            for data in self._logged(topics.SPANS, TracesData.FromString)
            for resource in data.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def header(self, name: str, topic: str = topics.SPANS) -> int:
        """The sum of a header of the log's records."""
        records = asyncio.run(_read(self.folder / "log", topic, self._partitions))
        return sum(record.headers.get(name, 0) for record in records)

    def _logged(self, topic: str, parse: Callable[[bytes], Any]) -> list[Any]:
        """Every record of a topic, parsed."""
        records = asyncio.run(_read(self.folder / "log", topic, self._partitions))
        return [parse(record.unpack()) for record in records]

    def counts(self, signal: str) -> int:
        """How many spans (``traces``), points (``metrics``) or log records (``logs``) the log has."""
        if signal == "traces":
            return len(self.span_ids())
        if signal == "logs":
            logs = self._logged(topics.LOGS, LogsData.FromString)
            return sum(
                len(scope.log_records)
                for data in logs
                for resource in data.resource_logs
                for scope in resource.scope_logs
            )
        points = self._logged(topics.METRICS, MetricsData.FromString)
        scopes = [
            scope for data in points for resource in data.resource_metrics for scope in resource.scope_metrics
        ]
        return sum(
            len(getattr(metric, metric.WhichOneof("data")).data_points)
            for scope in scopes
            for metric in scope.metrics
        )

    def _is_ready(self, ports: Path) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"the receiver ended: {self.said[-3000:]}"
        return ports.exists()


def _link(path: Path) -> str:
    try:
        return os.readlink(path)
    except FileNotFoundError:  # closed since it was listed
        return ""


def eventually(happened: Callable[[], bool], what: str, within_s: float = LONG_S) -> None:
    """Wait until something happened; fail with ``what`` should it not."""
    end_s = time.monotonic() + within_s
    while not happened():
        assert time.monotonic() < end_s, f"did not happen within {within_s} s: {what}"
        time.sleep(0.05)


async def _read(folder: Path, topic: str, partitions: int) -> list[Record]:
    """Every record of a topic."""
    reader = SqliteLogReader(folder)
    found: list[Record] = []
    for partition in range(partitions):
        tp, offset = TopicPartition(topic, partition), 0
        while records := await reader.read(tp, offset, 1 << 24):
            offset = records[-1].offset + 1
            found += records
    await reader.close()
    return found


class _FaultyLog(SqliteLogWriter):
    """Fails before it writes, in ways that may pass (two kinds) and one that may not, so that a failed append
    has nothing in the log.
    """

    chance: random.Random | None = None

    async def append(self, appends: Sequence[Append]) -> None:
        if self.chance is not None:
            error = self.chance.choice(
                [
                    None,
                    None,
                    None,
                    LogUnavailable("away"),
                    LogFull("full", retry_after_s=0.05),
                    RuntimeError("a bug"),
                ]
            )
            if error is not None:
                raise error
        await super().append(appends)


async def _serve(folder: Path, settings: dict[str, Any]) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    seed, partitions = settings.pop("faults", None), settings.pop("partitions")
    limits = Limits(age=timedelta(days=1), max_bytes=8 << 30)
    log = _FaultyLog(folder / "log", dict.fromkeys(topics.TOPICS, partitions), limits)
    log.chance = None if seed is None else random.Random(seed)
    server = IngestServer(IngestSettings(**settings), log, partitions)
    await server.start()
    partial = folder / "ports.partial"
    partial.write_text(json.dumps({"grpc": server.grpc_port, "http": server.http_port}))
    partial.rename(folder / "ports.json")
    await stop.wait()
    await server.stop()
    await log.close()


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1]), json.loads(sys.argv[2])))
