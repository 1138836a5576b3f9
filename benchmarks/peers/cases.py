"""The cases: which job, which system, which load; and how one of them is measured.

CPU is user + system of the system's processes, from the first request until it is done: until it reports
that it has processed all spans, or, where it reports nothing, until it has taken less than a twentieth of a
core for a while. The load program's CPU, and Kafka's, are not in it. The rate is spans over the time until
the last one was answered: what senders see. Peak RSS is VmHWM, summed over the system's processes.
"""

import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.peers import systems
from benchmarks.peers.kafka import count_spans
from benchmarks.peers.loader import Loader, Sent, cpu_s
from benchmarks.peers.systems import RECEIVERS, Running
from benchmarks.report import Case, Measurement, peak_rss_mib

START = Callable[..., AbstractContextManager[Running]]


@dataclass(frozen=True, slots=True)
class Plan:
    """What all cases of a run share."""

    folder: Path
    """Load files (:func:`load_file`)."""
    kafka: str
    """``HOST:PORT`` of the broker; "" without."""
    seconds: float
    """How long a case that is not paced sends at most."""


SIZES = {"214": 214, "5": 5}
"""Spans a request: a Collector's batch, and a sidecar's export."""

_LIMITS = {
    "214": ("--connections", "8", "--in-flight", "128"),
    "5": ("--connections", "64", "--in-flight", "4096"),
}
_LIMITS_GRPCIO = {**_LIMITS, "5": ("--connections", "64", "--in-flight", "512")}
"""grpcio cancels calls when a thousand wait for it, which are then sent again."""
_DONE_S = 300.0
_QUIET = 0.05
_PACE = 50_000
_EVERY_S = 4.0
_STARTS: Mapping[str, START] = {
    "receive meshflow": systems.meshflow_receive,
    "receive collector": systems.collector_receive,
    "receive rotel": systems.rotel_receive,
    "kafka meshflow": systems.meshflow_ingest,
    "kafka collector": systems.collector_kafka,
    "kafka rotel": systems.rotel_kafka,
    "red meshflow": systems.meshflow_process,
    "red collector": systems.collector_red,
    "tail-red meshflow": systems.meshflow_process,
    "tail-red collector": systems.collector_tail,
    "whole-job meshflow": systems.meshflow_up,
}
"""Job and system to what starts it."""

JOBS = {"receive": (0,), "kafka": (0,), "red": (0,), "tail-red": (_PACE,), "whole-job": (0, _PACE)}
"""Jobs, and the spans a second that they are given (0: as fast as answers allow)."""

CONNECTIONS = (1_000, 5_000)


def load_file(folder: Path, size: str) -> Path:
    """Where the requests of a size are."""
    return folder / f"{size}.load"


@dataclass(frozen=True, slots=True)
class Contender:
    """A system, and which of meshflow's receivers it has ("" for others)."""

    system: str
    receiver: str = ""

    def __str__(self) -> str:
        return f"{self.system}-{self.receiver}" if self.receiver in RECEIVERS[1:] else self.system


def cases(plan: Plan) -> list[Case]:
    """All of a run, in its order: the systems take turns."""
    return [
        *(
            case
            for job in JOBS
            for size in SIZES
            for pace in JOBS[job]
            for case in _paced(plan, job, size, pace)
        ),
        *(case for count in CONNECTIONS for case in _connections(plan, count)),
    ]


def _paced(plan: Plan, job: str, size: str, pace: int) -> Iterator[Case]:
    pacing = ("--seconds", str(3 * plan.seconds if pace else plan.seconds), "--rate", str(pace))
    name = f"{job}-{size}" + (f"-at-{pace}" if pace else "")
    for contender in _contenders(job):
        options = (*(_LIMITS_GRPCIO if contender.receiver == "grpcio" else _LIMITS)[size], *pacing)
        arguments = {
            "contender": contender,
            "job": job,
            "kafka": plan.kafka,
            "load": str(load_file(plan.folder, size)),
            "options": options,
        }
        yield Case(name, str(contender), run, arguments)


def _connections(plan: Plan, count: int) -> Iterator[Case]:
    """Each connection, from an address of its own, sends 5 spans every 4 s."""
    seconds = str(max(_EVERY_S * 2, plan.seconds))
    options = (
        "--connections",
        str(count),
        "--in-flight",
        str(count),
        "--hosts",
        "--rate",
        str(count * 5 / _EVERY_S),
        "--seconds",
        seconds,
    )
    for contender in _contenders("connections"):
        arguments = {
            "contender": contender,
            "job": "receive",
            "kafka": "",
            "load": str(load_file(plan.folder, "5")),
            "options": options,
        }
        yield Case(f"connections-{count}", str(contender), run, arguments)


def _contenders(job: str) -> list[Contender]:
    """Of a job; meshflow's second receiver only where receiving is most of it."""
    ours = [
        Contender("meshflow", receiver)
        for receiver in (RECEIVERS if job in {"receive", "kafka"} else RECEIVERS[:1])
    ]
    others = [
        Contender(name)
        for name in ("collector", "rotel")
        if job == "connections" or f"{job} {name}" in _STARTS
    ]
    return [*ours, *others]


def run(contender: Contender, job: str, kafka: str, load: str, options: Sequence[str]) -> Measurement:
    """One case."""
    prefix = f"{uuid.uuid4().hex[:8]}."
    with (
        tempfile.TemporaryDirectory(prefix="meshflow-peers-") as folder,
        _start(contender, job, (kafka, prefix), Path(folder)) as running,
    ):
        with Loader(running.target, Path(load), *options) as loader:
            pids = _tree(running.pid)
            before_s = cpu_s(pids)
            sent = loader.send()
            _wait_until_done(running, pids, sent.spans)
        measurement = Measurement(sent.spans, cpu_s=cpu_s(pids) - before_s, wall_s=sent.wall_s)
        measurement.peak_rss_mib = sum(map(peak_rss_mib, pids))
        measurement.note = (f"receiver {contender.receiver}; " if contender.receiver else "") + _note(sent)
        if job == "kafka" and (arrived := count_spans(kafka, prefix)) < sent.spans:
            raise RuntimeError(
                f"of {sent.spans} spans that were taken {arrived} are in Kafka: {running.said()[-1000:]}"
            )
    return measurement


def _start(
    contender: Contender, job: str, topics: tuple[str, str], folder: Path
) -> AbstractContextManager[Running]:
    arguments: dict[str, Any] = {"folder": folder}
    ours = contender.system == "meshflow"
    if ours:
        arguments["receiver"] = contender.receiver
    if job == "kafka":
        arguments |= dict(zip(("kafka", "prefix"), topics, strict=True))
    if ours and job in {"red", "tail-red"}:
        arguments["percentage"] = systems.KEPT_PERCENT if job == "tail-red" else 0.0
    return _STARTS[f"{job} {contender.system}"](**arguments)


def _wait_until_done(running: Running, pids: Sequence[int], spans: int) -> None:
    """Return when the system has said that it is, and has been quiet for two seconds."""
    time.sleep(running.settle_s)
    end_s = time.monotonic() + _DONE_S
    while running.received is not None and (received := running.received()) < spans:
        if time.monotonic() > end_s:
            raise RuntimeError(
                f"{spans} spans were taken, after {_DONE_S:.0f} s {received} are processed: {running.said()[-1000:]}"
            )
        time.sleep(0.5)
    quiet = 0
    while quiet < 2 and time.monotonic() < end_s:
        before_s = cpu_s(pids)
        time.sleep(1.0)
        quiet = quiet + 1 if cpu_s(pids) - before_s < _QUIET else 0


def _note(sent: Sent) -> str:
    text = (
        f"{sent.bytes / sent.spans:.0f} B a span; load program {sent.cpu_s / sent.spans * 1e6:.2f} CPU s / 1M"
    )
    text += f"; answers in {sent.p50_ms:.0f} ms (99 %: {sent.p99_ms:.0f}, longest {sent.max_ms:.0f})"
    if sent.refused or sent.broken or sent.rejected:
        text += (
            f"; {sent.refused} refused and sent again, {sent.broken} broken, {sent.rejected} spans rejected"
        )
    if sent.fewest_on_a_connection < sent.most_on_a_connection // 2:
        text += f"; {sent.fewest_on_a_connection} to {sent.most_on_a_connection} requests a connection"
    return text


def _tree(pid: int) -> list[int]:
    """A process and all that descend from it."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue  # it has ended
        children.setdefault(parent, []).append(int(stat.parent.name))
    found = [pid]
    for one in found:
        found += children.get(one, [])
    return found
