"""Three brokers, two receivers, three workers and a store as processes, and what is done to them."""

import asyncio
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from tests.e2e.faults.fault_plan import REBALANCES, Fault, Kind, Part
from tests.support.kafka.broker import Cluster, Node
from tests.support.kafka.fleet import Command
from tests.support.kafka.place import KafkaPlace
from tests.support.kafka.ports import reserve_port

LONG_S = 240.0
"""How long anything that must happen may take on a busy machine."""
INGESTS = 2
WORKERS = 3
BROKERS = 3
CONFIG = """
[ingest]
gather_window = "200ms"

[processing]
pane = "2s"
wait = 2
partitions = 3
lookback = "120s"  # longer than it can take until a request that was logged but not answered comes again

[processing.kafka]
session_timeout = "6s"

[console]
max_query_time = "5m"

[[sampling.policies]]
name = "errors"
type = "error"

[[sampling.policies]]
name = "half"
type = "probabilistic"
probabilistic = { sampling_percentage = 50 }
"""
ERROR_CODES = {1, 70}
"""Of the command line (meshflow.cli): it could not start, or go on."""

BROKER_SETTINGS = {"broker.session.timeout.ms": "6000"}


class FaultedFleet:
    """Three brokers, two receivers, three workers and a store; whatever ends by itself is started again, as a
    container engine would.

    Processes end with the thread that starts them, so all of this runs on the main one.
    """

    def __init__(self, folder: Path, on_event: Callable[[str], None] = lambda _: None) -> None:
        """``on_event`` gets each line of the story."""
        self.folder = folder
        self._on_event = on_event
        self.cluster = Cluster(folder / "kafka", BROKERS, BROKER_SETTINGS, heap="256m")
        self.place = KafkaPlace(self.cluster)
        sql_port = reserve_port()
        self.store_url = f"clickhouse://127.0.0.1:{sql_port}/default"
        serve = ("store", "--data", str(folder / "data"), "--sql-port", str(sql_port), "--writable")
        self.store = Command(folder, "store", self.place.url, *serve, config=CONFIG)
        ports = [reserve_port() for _ in range(INGESTS)]
        spool = ("--spool", str(folder / "spool"))
        self.targets = [f"127.0.0.1:{port}" for port in ports]
        self.ingests = [
            self._command(
                f"ingest{number}",
                "ingest",
                "--grpc-port",
                str(port),
                "--http-port",
                "0",
                "--metrics-port",
                "0",
                *spool,
            )
            for number, port in enumerate(ports)
        ]
        self.workers = [self._worker(number) for number in range(WORKERS)]
        self.story: list[str] = []
        """What was done to whom, and what happened by itself, with seconds since the start."""
        self.ended_by_itself = 0
        self.unexpected: list[str] = []
        """Ends without a reason that was logged."""
        self._began_s = time.monotonic()
        self._away: set[Command] = set()
        self._handled = {worker: asyncio.Lock() for worker in self.workers}
        self._watching: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "FaultedFleet":
        try:
            self.cluster.__enter__()
            self.store.launch()
            await self._ready(self.store)
            migrate = Command(
                self.folder, "migrate", self.place.url, "migrate", config=CONFIG, store_url=self.store_url
            )
            migrate.launch()
            assert migrate.wait() == 0, migrate.output()
            for command in (*self.ingests, *self.workers):
                command.launch()
            self._watching = asyncio.create_task(self._watch())
            for command in (*self.ingests, *self.workers):
                await self._ready(command)
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop_watching()
        for command in (*self.ingests, *self.workers, self.store):
            if command.process is not None:
                command.stop(signal.SIGKILL)
        self.cluster.__exit__()

    async def stop_watching(self) -> None:
        """From now on nothing is started again."""
        if self._watching is not None:
            self._watching.cancel()
            with suppress(asyncio.CancelledError):
                await self._watching
            self._watching = None

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self._began_s

    def report(self, what: str) -> None:
        """Add to the story."""
        self.story.append(f"{self.seconds:7.1f} s  {what}")
        self._on_event(self.story[-1])

    async def suffer(self, plan: Iterable[Fault]) -> None:
        """All faults of a plan: those of one part in a row (of workers: kills and rebalances apart), the
        parts side by side.
        """
        lanes: dict[tuple[Part, bool], list[Fault]] = {}
        for fault in plan:
            lanes.setdefault((fault.part, fault.kind in REBALANCES), []).append(fault)
        async with asyncio.TaskGroup() as parts:
            for faults in lanes.values():
                parts.create_task(self._in_a_row(faults))

    async def _in_a_row(self, faults: Sequence[Fault]) -> None:
        for fault in faults:
            await asyncio.sleep(fault.after_s)
            self.report(f"{fault}")
            match fault.part:
                case Part.BROKER:
                    await self._break_broker(fault)
                case Part.INGEST:
                    await self._break_command(self.ingests[fault.victim % INGESTS], fault)
                case Part.STORE:
                    await self._break_command(self.store, fault)
                case Part.WORKER if fault.kind is Kind.JOIN:
                    await self._add_worker(fault)
                case Part.WORKER:
                    command = self.workers[fault.victim % WORKERS]
                    async with self._handled[command]:
                        await self._break_command(command, fault)
            self.report(f"{fault.part} {fault.victim} is back")

    async def _break_command(self, command: Command, fault: Fault) -> None:
        assert command.process is not None
        if fault.kind is Kind.PAUSE:
            process = command.process  # should it have ended, these do nothing
            process.send_signal(signal.SIGSTOP)
            try:
                await asyncio.sleep(fault.lasts_s)
            finally:
                process.send_signal(signal.SIGCONT)
            return
        self._away.add(command)
        if fault.kind is Kind.LEAVE:
            await self.ask_to_end(command)
        else:
            command.kill()
        await asyncio.sleep(fault.lasts_s)
        command.launch()
        self._away.discard(command)
        if fault.part is Part.INGEST:  # clients need one
            await self._ready(command)

    async def _add_worker(self, fault: Fault) -> None:
        command = self._worker(WORKERS + fault.victim)
        command.launch()
        try:
            await self.until(lambda: command.ended() or is_ready(command), f"{command.name} is ready")
            await asyncio.sleep(fault.lasts_s)
            await self.ask_to_end(command)
        finally:
            command.stop(signal.SIGKILL)

    async def ask_to_end(self, command: Command, *, cleanly: bool = False) -> None:
        """SIGTERM; it may take a while to finish what is in hand, and then does not get it done where its
        database is away.

        ``cleanly``: it has all that it needs, so it must get it done; it is asked when it has begun.
        """
        assert command.process is not None
        if cleanly:
            await self.until(lambda: command.ended() or is_ready(command), f"{command.name} is ready")
        command.process.send_signal(signal.SIGTERM)
        await self.until(command.ended, f"{command.name} ends when asked to")
        code = command.process.returncode
        self.report(f"{command.name} ended with {code}")
        if cleanly:
            assert code == 0, f"{command.name} ended with {code}: {command.output()[-3000:]}"
        elif code not in {0, -signal.SIGTERM}:  # the latter: it had hardly begun
            self._look_at_end(command)

    def _look_at_end(self, command: Command) -> None:
        """Whatever ends of an error says which (docs/adr/0020, 0024); a traceback or a signal is a fault of
        ours.
        """
        assert command.process is not None
        code = command.process.returncode
        if code not in ERROR_CODES or command.has_said(r"(?m)(^meshflow: )") is None:
            self.unexpected.append(f"{command.name} ended with {code}: {command.output()[-3000:]}")

    async def _break_broker(self, fault: Fault) -> None:
        node = self.cluster.nodes[fault.victim % BROKERS]
        if fault.kind is Kind.PAUSE:
            node.pause()
            try:
                await asyncio.sleep(fault.lasts_s)
            finally:
                node.resume()
        else:
            node.stop(signal.SIGKILL)
            await asyncio.sleep(fault.lasts_s)
            node.launch()
            await self.until(node.is_ready, f"broker {node.number} starts again")
        await self._in_sync(node)

    async def _in_sync(self, node: Node) -> None:
        """Wait until every partition has all its copies again: only then may another broker go away. The
        others are asked.
        """
        others = [other.address for other in self.cluster.nodes if other is not node]
        end_s = time.monotonic() + LONG_S
        while missing := await _out_of_sync(others):
            assert time.monotonic() < end_s, (
                f"copies are not in sync after broker {node.number} came back: {missing}"
            )
            await asyncio.sleep(0.5)

    async def restart_ingests(self) -> None:
        """Every receiver ended, and started anew."""
        await self.end_ingests()
        for command in self.ingests:
            command.launch()
            await self._ready(command)
        self._away.clear()

    async def end_ingests(self) -> None:
        """Every receiver is asked to end; what it has got is in the log or in its spool then."""
        self._away.update(self.ingests)
        for command in self.ingests:
            if not command.ended():
                await self.ask_to_end(command, cleanly=True)

    async def _ready(self, command: Command) -> None:
        """Wait until it is; should it end before, it is started again where that is watched."""

        def ready() -> bool:
            assert self._watching or not command.ended(), f"{command.name} ended: {command.output()[-3000:]}"
            return is_ready(command)

        await self.until(ready, f"{command.name} is ready")

    async def until(self, happened: Callable[[], bool], what: str) -> None:
        """Wait for a condition. Fails with the story."""
        end_s = time.monotonic() + LONG_S
        while not happened():
            assert not self.unexpected, self.unexpected
            assert time.monotonic() < end_s, f"did not happen within {LONG_S} s: {what}"
            await asyncio.sleep(0.1)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(0.2)
            for command in {*self.ingests, *self.workers, self.store} - self._away:
                if command.ended():
                    assert command.process is not None
                    self.ended_by_itself += 1
                    last_words = command.output().strip().rpartition("\n")[2]
                    self.report(
                        f"{command.name} ended by itself with {command.process.returncode}: {last_words}"
                    )
                    self._look_at_end(command)
                    command.launch()

    def explain(self, what: str) -> str:
        """A failure with the story that led to it."""
        return "\n".join([what, f"logs: {self.folder}", *self.story])

    def _worker(self, number: int) -> Command:
        return self._command(f"process{number}", "process", "--metrics-port", "0")

    def _command(self, name: str, *arguments: str) -> Command:
        return Command(self.folder, name, self.place.url, *arguments, config=CONFIG, store_url=self.store_url)


def is_ready(command: Command) -> bool:
    """Whether its newest process says so."""
    return command.has_said("Ctrl-C ends it") is not None


async def _out_of_sync(bootstrap: Sequence[str]) -> str:
    """A partition that misses a copy, or why that is not known; "" when none does."""
    admin = AIOKafkaAdminClient(bootstrap_servers=list(bootstrap), request_timeout_ms=5_000)
    try:
        await admin.start()
        for topic in await admin.describe_topics():
            for partition in topic["partitions"]:
                if len(partition["isr"]) < len(partition["replicas"]):
                    return f"{topic['topic']}/{partition['partition']}: {partition['isr']} of {partition['replicas']}"
    except (KafkaError, TimeoutError) as error:
        return repr(error)
    finally:
        await admin.close()
    return ""
