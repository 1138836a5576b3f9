"""The distributed mode on a real broker: what a span costs from the gRPC port into Kafka, and from Kafka into the store.

``make bench-kafka`` starts a Kafka of one node (tests/kafka/broker.py), fills a log of a million spans at the 50,000 a second that meshflow
is sized for (4 partitions, gathered for 50 ms, then ticks), and runs each case on it. CPU is of the measured process alone: neither the
load program's nor the broker's is in it, though both take their share of the machine's cores and so lower the rates.
"""

import asyncio
import json
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
from statistics import median
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as KafkaPartition

from benchmarks.end_to_end import SPANS_PER_REQUEST, _cpu_s, _load
from benchmarks.load import generate_requests
from benchmarks.report import Case, Measurement, main, peak_rss_mib
from ingest.kafka import KafkaLogWriter
from ingest.settings import KafkaWriterSettings
from processors.brokers import Brokers
from processors.panes import Emit, PaneClock
from processors.partition import Partition
from processors.settings import KafkaReaderSettings, ProcessorSettings
from processors.worker import PaneWork, Worker
from schemas import otlp
from schemas.log import Append, Commit, DeadLetter, Record, TopicPartition
from schemas.tables import Block
from schemas.topics import SPANS, TOPICS
from schemas.units import NS_PER_S
from tests.e2e.up import MESHFLOW, ROOT, eventually
from tests.kafka.broker import Cluster, missing

PARTITIONS = 4
SPANS_PER_S = 50_000
GATHER_REQUESTS = 12  # 50 ms
PANE_S = 5.0
WITHIN_S = 180.0
BOOTSTRAP = "BENCH_KAFKA"
"""Environment variable: where this run's broker is."""

FILLED = "filled."
SETTINGS = ProcessorSettings(partitions=PARTITIONS)
CONFIG = """
[processing]
pane = "5s"
wait = 2

[processing.kafka]
group = "{group}"

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
    """Kafka to stored: ``meshflow process`` on the filled log, from its start until all is decided; without what starting it costs."""
    measurement = Measurement(spans)
    with _command("process", FILLED, "process", group="bench-process") as (worker, said):
        said("(is running)")
        asyncio.run(_follow("bench-process", 0.0, [worker]))  # the first commit: it has begun
        begin_s, cpu_before_s, decided = time.perf_counter(), _cpu_s(worker.pid), asyncio.run(_decided("bench-process"))
        asyncio.run(_follow("bench-process", 1.0, [worker]))
        share = 1 - decided
        measurement.wall_s = (time.perf_counter() - begin_s) / share
        measurement.cpu_s = (_cpu_s(worker.pid) - cpu_before_s) / share
        measurement.peak_rss_mib = peak_rss_mib(worker.pid)
    measurement.note = f"chdb as the store; keeps 2 %; measured over the last {share:.0%} of the log"
    return measurement


def faust(spans: int, rounds: int) -> Measurement:
    """What Faust adds: the filled log into equal Partition objects by the app, and by a plain getmany loop, in turns; the difference."""
    measurement = Measurement(spans)
    by_faust, plain = [], []
    begin_s = time.perf_counter()
    for number in range(rounds):
        by_faust.append(asyncio.run(_read_by_faust(f"bench-faust-{os.getpid()}-{number}")))
        plain.append(asyncio.run(_read_plainly()))
    measurement.wall_s = (time.perf_counter() - begin_s) / 2 / rounds
    measurement.cpu_s = median(by_faust) - median(plain)
    measurement.peak_rss_mib = peak_rss_mib()
    per_million = 1e6 / spans
    measurement.note = (
        f"CPU s / 1M spans through Faust {', '.join(f'{cpu_s * per_million:.2f}' for cpu_s in by_faust)};"
        f" through getmany {', '.join(f'{cpu_s * per_million:.2f}' for cpu_s in plain)}; processors that do nothing"
    )
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
            asyncio.run(_follow("bench-idle", 0.0, [worker], "idle."))
            cpu_before_s = _cpu_s(worker.pid)
            time.sleep(seconds)
            measurement.cpu_s = _cpu_s(worker.pid) - cpu_before_s
            measurement.wall_s = seconds
            measurement.peak_rss_mib = peak_rss_mib(worker.pid)
    measurement.note = f"no spans: {measurement.cpu_s / seconds:.1%} of a core over {seconds:.0f} s, {3 * PARTITIONS} partitions with ticks"
    return measurement


def _rate(spans: int, workers: int) -> Measurement:
    """The rate of so many workers between a fifth of the log and nine tenths of it, in panes of a second for a fine measure."""
    group = f"bench-{workers}-workers"
    measurement = Measurement(spans)
    cores = sorted(os.sched_getaffinity(0))
    with ExitStack() as stack:
        commands = (_command(f"process-{number}", FILLED, "process", "--pane", "1s", group=group) for number in range(workers))
        started = [stack.enter_context(command) for command in commands]
        for number, (worker, _) in enumerate(started):
            os.sched_setaffinity(worker.pid, {cores[number % len(cores)]})
        for _, said in started:
            said("(is running)")
        processes = [worker for worker, _ in started]
        asyncio.run(_follow(group, 0.2, processes))
        begin_s, decided = time.perf_counter(), asyncio.run(_decided(group))
        cpu_before_s = sum(_cpu_s(worker.pid) for worker in processes)
        asyncio.run(_follow(group, 0.9, processes))
        share = asyncio.run(_decided(group)) - decided
        measurement.wall_s = (time.perf_counter() - begin_s) / share
        measurement.cpu_s = (sum(_cpu_s(worker.pid) for worker in processes) - cpu_before_s) / share
        measurement.peak_rss_mib = max(peak_rss_mib(worker.pid) for worker in processes)
    return measurement


@contextmanager
def _command(name: str, prefix: str, *arguments: str, group: str = "bench") -> Iterator[Any]:
    """A command of meshflow on topics of ``prefix``, in a folder of its own: the process, and how to wait for what it says."""
    with tempfile.TemporaryDirectory(prefix="meshflow-bench-") as folder:
        config, said = Path(folder, "meshflow.toml"), Path(folder, f"{name}.log")
        config.write_text(CONFIG.format(group=group))
        environment = {
            **os.environ,
            "MESHFLOW_LOG": f"kafka://{os.environ[BOOTSTRAP]}/{prefix}",
            "MESHFLOW_STORE": f"chdb://{folder}/store",
        }
        command = [*MESHFLOW, "--config", str(config), *arguments, "--metrics-port", "0"]
        with said.open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT, env=environment)

        def wait_for(pattern: str) -> str:
            eventually(lambda: re.search(pattern, said.read_text()) is not None, said.read_text, WITHIN_S, every_s=0.05)
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


async def _follow(group: str, until: float, workers: Sequence["subprocess.Popen[bytes]"], prefix: str = FILLED) -> None:
    """Return when the group has decided this share of the filled log (0: has committed at all)."""
    end_s = time.monotonic() + WITHIN_S
    async with _member(group, prefix) as consumer:
        while not (decided := await _share(consumer, prefix)) or decided < until:
            if any(worker.poll() is not None for worker in workers):
                raise RuntimeError("a worker ended by itself")
            if time.monotonic() > end_s:
                raise TimeoutError(f"{group} has decided {decided:.1%} of {prefix}{SPANS} after {WITHIN_S} s")
            await asyncio.sleep(0.1)


async def _decided(group: str) -> float:
    async with _member(group, FILLED) as consumer:
        return await _share(consumer, FILLED)


def _member(group: str, prefix: str) -> AIOKafkaConsumer:
    return AIOKafkaConsumer(bootstrap_servers=os.environ[BOOTSTRAP], group_id=prefix + group, enable_auto_commit=False)


async def _share(consumer: AIOKafkaConsumer, prefix: str) -> float:
    """How much of the records with spans a group has decided: by the first offset that its commits call undecided."""
    kps = [KafkaPartition(prefix + SPANS, number) for number in range(PARTITIONS)]
    known = await consumer._coordinator.fetch_committed_offsets(kps)
    offsets: dict[KafkaPartition, int] = {kp: _undecided(known[kp].metadata) if kp in known and known[kp].offset >= 0 else 0 for kp in kps}
    if prefix != FILLED:
        return float(all(offsets.values()))
    ends: list[int] = json.loads(os.environ["BENCH_KAFKA_ENDS"])
    return float(sum(min(offset, ends[kp.partition]) for kp, offset in offsets.items()) / sum(ends))


def _undecided(metadata: str) -> int:
    found = re.search(r"from=(\d+)", metadata)
    return int(found[1]) if found else 0


class _Idler:
    """A processor that does nothing."""

    offset = 0

    def __init__(self) -> None:
        self.records = 0

    def feed(self, records: Sequence[Record]) -> list[Emit]:
        self.records += sum(record.size > 0 for record in records)
        return []

    def gap(self, wanted: int, beginning: int) -> None:
        raise AssertionError(f"records {wanted} to {beginning} are gone")


class _Nowhere:
    """A sink that nothing comes to."""

    def write(self, block: Block) -> None:
        raise AssertionError(block.token)

    def close(self) -> None:
        """Nothing to let go of."""


async def _nobody(tp: TopicPartition, letters: Sequence[DeadLetter]) -> None:
    raise AssertionError((tp, letters))


async def _read_by_faust(group: str) -> float:
    """CPU seconds from the first record to the last."""
    settings = SETTINGS.model_copy(update={"kafka": KafkaReaderSettings(group=group)})
    idlers: list[_Idler] = []

    def make(tp: TopicPartition, commit: Commit | None) -> _Idler:  # noqa: ARG001
        idlers.append(_Idler())
        return idlers[-1]

    worker = Worker(_brokers(), FILLED, settings, make, sink=_Nowhere(), set_aside=_nobody)
    stop = asyncio.Event()
    serving = asyncio.create_task(worker.serve(stop))
    cpu_s = await _until_read(idlers)
    stop.set()
    await serving
    return cpu_s


async def _read_plainly() -> float:
    """The same by getmany."""
    idlers = [_Idler() for _ in range(PARTITIONS)]
    work = PaneWork(FILLED, SETTINGS, lambda tp, _: idlers[tp.partition], _Nowhere(), _nobody)
    consumer = _brokers().consumer(enable_auto_commit=False, max_partition_fetch_bytes=4 << 20, auto_offset_reset="earliest")
    await consumer.start()
    kps = [KafkaPartition(FILLED + SPANS, number) for number in range(PARTITIONS)]
    consumer.assign(kps)
    cursors = {
        kp: Partition(TopicPartition(SPANS, kp.partition), idlers[kp.partition], PaneClock(int(PANE_S * 1e9), 0), 0, 1 << 62) for kp in kps
    }

    async def read() -> None:
        while True:
            for kp, messages in (await consumer.getmany(timeout_ms=1_000)).items():
                for message in messages:
                    await work.take(cursors[kp], _record_of(message), more=True)

    reading = asyncio.create_task(read())
    cpu_s = await _until_read(idlers)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    await consumer.stop()
    work.close()
    return cpu_s


def _record_of(message: Any) -> Record:
    return Record(message.offset, message.timestamp * 1_000_000, message.value or b"", len(message.value or b""))


async def _until_read(idlers: Sequence[_Idler]) -> float:
    records = int(os.environ["BENCH_KAFKA_RECORDS"])
    end_s = time.monotonic() + WITHIN_S
    while not any(idler.records for idler in idlers):
        await asyncio.sleep(0.001)
        assert time.monotonic() < end_s, "nothing was read"
    begin_s = time.process_time()
    while sum(idler.records for idler in idlers) < records:
        await asyncio.sleep(0.01)
        assert time.monotonic() < end_s, f"{sum(idler.records for idler in idlers)} of {records} records were read"
    return time.process_time() - begin_s


def _brokers() -> Brokers:
    return Brokers(tuple(os.environ[BOOTSTRAP].split(",")))


async def _fill(spans: int) -> None:
    """A log of so many spans; the environment then tells each partition's end and how many records there are."""
    bootstrap = os.environ[BOOTSTRAP].split(",")
    writer = await KafkaLogWriter.open(bootstrap, dict.fromkeys(TOPICS, PARTITIONS), KafkaWriterSettings(), FILLED)
    begin_s, sent, records = time.perf_counter(), 0, 0
    gathered: dict[int, list[bytes]] = {}
    for number, request in enumerate(generate_requests(spans, 100, 10, SPANS_PER_REQUEST, 1), 1):
        for partition, part in otlp.split(SPANS, request, PARTITIONS).parts.items():
            gathered.setdefault(partition, []).append(part)
        sent += SPANS_PER_REQUEST
        if number % GATHER_REQUESTS == 0 or sent >= spans:
            await writer.append([Append(TopicPartition(SPANS, partition), b"".join(parts)) for partition, parts in gathered.items()])
            records += len(gathered)
            gathered.clear()
            await asyncio.sleep(begin_s + sent / SPANS_PER_S - time.perf_counter())
    os.environ["BENCH_KAFKA_RECORDS"] = str(records)
    os.environ["BENCH_KAFKA_ENDS"] = json.dumps([writer._ends[TopicPartition(SPANS, number)] for number in range(PARTITIONS)])
    until_s = time.monotonic() + 4 * PANE_S + 1  # the last pane is decided two panes after it
    while time.monotonic() < until_s:
        await writer.tick(int(PANE_S * NS_PER_S))
        await asyncio.sleep(PANE_S / 4)
    await writer.close()
    await _decided("nobody")  # brokers make their topic of offsets when the first group asks for it


SPANS_FILLED = 1_000_000
CASES = [
    Case("gRPC -> Kafka", "meshflow ingest", ingest, {"spans": 500_000}),
    Case("Kafka -> stored", "meshflow process", process, {"spans": SPANS_FILLED}),
    Case("what Faust adds to reading", "Faust - getmany", faust, {"spans": SPANS_FILLED, "rounds": 3}),
    Case("Kafka -> stored, a core each", "2 workers", scale, {"spans": SPANS_FILLED}),
    Case("nothing to do", "meshflow process", idle, {"seconds": 30.0}),
]


def run(argv: Sequence[str] | None = None) -> None:
    """Start a broker, fill the log, run the cases."""
    if reason := missing():
        sys.exit(reason)
    with tempfile.TemporaryDirectory(prefix="meshflow-bench-") as folder, Cluster(Path(folder, "kafka")) as cluster:
        os.environ[BOOTSTRAP] = cluster.bootstrap
        asyncio.run(_fill(SPANS_FILLED))
        main("Kafka", CASES, argv)


if __name__ == "__main__":
    run()
