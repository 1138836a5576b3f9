"""The distributed mode on a real broker: what a span costs from the gRPC port into Kafka, and from Kafka into
the store.

``make bench-kafka`` starts a Kafka of one node (tests/support/kafka/broker.py), fills a log of a million
spans at the 50,000 a second that meshflow is sized for (4 partitions, gathered for 50 ms, then ticks), and
runs each case on it. CPU is of the measured process alone: neither the load program's nor the broker's is in
it, though both take their share of the machine's cores and so lower the rates.
"""

import asyncio
import json
import logging
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.end_to_end import _cpu_s, _load
from benchmarks.kafka_log import (
    BOOTSTRAP,
    FILLED,
    PARTITIONS,
    SPANS_PER_REQUEST,
    WITHIN_S,
    decided_share,
    fill,
    follow,
    gathers_of,
)
from benchmarks.kafka_reading import faust
from benchmarks.kafka_writing import compress, write
from benchmarks.report import Case, Measurement, main, peak_rss_mib
from tests.support.kafka.broker import Cluster, missing
from tests.support.up import MESHFLOW, ROOT, eventually

SPANS_PER_S = 50_000
PANE_S = 5.0
SHORT_PANE_S = 2.0
CONFIG = """
[processing]
pane = "{pane}"
lookback = "{lookback}"
wait = 2

[processing.kafka]
group = "{group}"
session_timeout = "30s"
commit_every = "200ms"

[[sampling.policies]]
name = "two-per-cent"
type = "probabilistic"
probabilistic = {{ sampling_percentage = 2.0 }}
"""


def ingest(spans: int) -> Measurement:
    """GRPC to Kafka: ``meshflow ingest``, from its first request to its last answer."""
    measurement = Measurement(spans)
    with _command("ingest", "ingested.", "ingest", "--grpc-port", "0", "--http-port", "0") as (process, said):
        with _load(said(r"OTLP/gRPC +(\S+)"), spans, 100, 10, 0) as load:
            assert load.stdin is not None
            assert load.stdout is not None
            load.stdout.readline()  # "ready"
            begin_s, cpu_before_s = time.perf_counter(), _cpu_s(process.pid)
            load.stdin.write("go\n")
            load.stdin.close()
            sent: dict[str, Any] = json.loads(load.stdout.readline())
            measurement.wall_s = time.perf_counter() - begin_s
        measurement.cpu_s = _cpu_s(process.pid) - cpu_before_s
        measurement.peak_rss_mib = peak_rss_mib(process.pid)
    measurement.note = f"{SPANS_PER_REQUEST} spans a request; the load program took {sent['cpu_s']:.1f} CPU s; {sent['retried']} sent again"
    return measurement


def process(spans: int) -> Measurement:
    """Kafka to stored: ``meshflow process`` on the filled log, from its start until all is decided; without
    what starting it costs.
    """
    measurement = Measurement(spans)
    with _command("process", FILLED, "process", group="bench-process") as (worker, said):
        said("(is running)")
        asyncio.run(follow("bench-process", 0.0, [worker]))  # the first commit: it has begun
        begin_s, cpu_before_s, decided = (
            time.perf_counter(),
            _cpu_s(worker.pid),
            asyncio.run(decided_share("bench-process")),
        )
        asyncio.run(follow("bench-process", 1.0, [worker]))
        share = 1 - decided
        measurement.wall_s = (time.perf_counter() - begin_s) / share
        measurement.cpu_s = (_cpu_s(worker.pid) - cpu_before_s) / share
        measurement.peak_rss_mib = peak_rss_mib(worker.pid)
    measurement.note = f"chdb as the store; keeps 2 %; measured over the last {share:.0%} of the log"
    return measurement


def scale(spans: int) -> Measurement:
    """One worker, then two, each held to a core of its own; what the second one brings."""
    alone = _rate(spans, 1)
    measurement = _rate(spans, 2)
    factor = alone.wall_s / measurement.wall_s
    measurement.note = (
        f"{factor:.2f}x of one worker ({spans / alone.wall_s:,.0f} spans/s, {alone.cpu_s / spans * 1e6:.2f} CPU s / 1M);"
        f" {os.cpu_count()} cores, on which the broker runs too"
    )
    return measurement


def idle(seconds: float) -> Measurement:
    """A worker with nothing to do but ticks every pane: its share of a core, as CPU s in ``seconds``."""
    measurement = Measurement(1_000_000)
    with _command("ingest", "idle.", "ingest", "--grpc-port", "0", "--http-port", "0") as (_, ingesting):
        ingesting("(is ready)")
        with _command("process", "idle.", "process", group="bench-idle") as (worker, said):
            said("(is running)")
            asyncio.run(follow("bench-idle", 0.0, [worker], "idle."))
            cpu_before_s = _cpu_s(worker.pid)
            time.sleep(seconds)
            measurement.cpu_s = _cpu_s(worker.pid) - cpu_before_s
            measurement.wall_s = seconds
            measurement.peak_rss_mib = peak_rss_mib(worker.pid)
    measurement.note = f"no spans: {measurement.cpu_s / seconds:.1%} of a core over {seconds:.0f} s, {3 * PARTITIONS} partitions with ticks"
    return measurement


def _rate(spans: int, workers: int) -> Measurement:
    """The rate of so many workers, all of which have their partitions and stand still until the log is
    filled.
    """
    group, prefix = f"bench-{workers}-workers", f"scale-{workers}."
    measurement = Measurement(spans)
    cores = sorted(os.sched_getaffinity(0))
    gathers = list(gathers_of(spans))
    asyncio.run(fill(prefix, [], SHORT_PANE_S))
    with ExitStack() as stack:
        commands = [
            _command(f"process-{number}", prefix, "process", group=group, pane="2s", lookback="4s")
            for number in range(workers)
        ]
        started = [stack.enter_context(command) for command in commands]
        for number, (worker, said) in enumerate(started):
            os.sched_setaffinity(worker.pid, {cores[number % len(cores)]})
            said(f"(reading {re.escape(prefix)})")
        processes = [worker for worker, _ in started]
        time.sleep(3)  # the first one gives partitions to the second
        for worker in processes:
            worker.send_signal(signal.SIGSTOP)
        asyncio.run(fill(prefix, gathers, SHORT_PANE_S))
        begin_s, cpu_before_s = time.perf_counter(), sum(_cpu_s(worker.pid) for worker in processes)
        for worker in processes:
            worker.send_signal(signal.SIGCONT)
        asyncio.run(follow(group, 1.0, processes, prefix))
        measurement.wall_s = time.perf_counter() - begin_s
        measurement.cpu_s = sum(_cpu_s(worker.pid) for worker in processes) - cpu_before_s
        measurement.peak_rss_mib = max(peak_rss_mib(worker.pid) for worker in processes)
    return measurement


@contextmanager
def _command(
    name: str, prefix: str, *arguments: str, group: str = "bench", pane: str = "5s", lookback: str = "60s"
) -> Iterator[Any]:
    """A command of meshflow on topics of ``prefix``, in a folder of its own: the process, and how to wait for
    what it says.
    """
    with tempfile.TemporaryDirectory(prefix="meshflow-bench-") as folder:
        config, said = Path(folder, "meshflow.toml"), Path(folder, f"{name}.log")
        config.write_text(CONFIG.format(group=group, pane=pane, lookback=lookback))
        environment = {
            **os.environ,
            "MESHFLOW_LOG": f"kafka://{os.environ[BOOTSTRAP]}/{prefix}",
            "MESHFLOW_STORAGE__DATA": folder,
        }
        command = [*MESHFLOW, "--verbose", "--config", str(config), *arguments, "--metrics-port", "0"]
        with said.open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT, env=environment)

        def wait_for(pattern: str) -> str:
            eventually(
                lambda: re.search(pattern, said.read_text()) is not None,
                said.read_text,
                WITHIN_S,
                every_s=0.05,
            )
            found = re.search(pattern, said.read_text())
            assert found
            return found[1]

        try:
            yield process, wait_for
        except Exception as error:
            raise RuntimeError(f"{error}: {said.read_text()[-1_000:]}") from error
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()


SPANS_FILLED = 1_000_000
CASES = [
    Case("gRPC -> Kafka", "meshflow ingest", ingest, {"spans": 500_000}),
    Case("gathers -> Kafka", "the writer alone", write, {"spans": 500_000}),
    Case("gathers -> zstd", "aiokafka's call", compress, {"spans": 500_000}),
    Case("Kafka -> stored", "meshflow process", process, {"spans": SPANS_FILLED}),
    Case("what Faust adds to reading", "Faust - getmany", faust, {"spans": SPANS_FILLED, "rounds": 3}),
    Case("Kafka -> stored, a core each", "2 workers", scale, {"spans": 2_000_000}),
    Case("nothing to do", "meshflow process", idle, {"seconds": 30.0}),
]


def run(argv: Sequence[str] | None = None) -> None:
    """Start a broker, fill the log, run the cases."""
    if reason := missing():
        sys.exit(reason)
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # brokers that have just begun ask for patience
    with (
        tempfile.TemporaryDirectory(prefix="meshflow-bench-") as folder,
        Cluster(Path(folder, "kafka")) as cluster,
    ):
        os.environ[BOOTSTRAP] = cluster.bootstrap
        asyncio.run(
            decided_share("nobody")
        )  # brokers make their topic of offsets when the first group asks for it
        asyncio.run(fill(FILLED, gathers_of(SPANS_FILLED), PANE_S, SPANS_PER_S))
        main("Kafka", CASES, argv)


if __name__ == "__main__":
    run()
