"""``meshflow ingest`` as processes on a real Kafka: brokers stopped, processes killed, workers that share
ports.
"""

import asyncio
import os
import re
import signal
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from aiokafka.errors import KafkaError

from log.kafka.settings import KafkaWriterSettings
from tests.support.kafka.broker import Cluster
from tests.support.kafka.fleet import Command, ingest
from tests.support.kafka.place import KafkaPlace
from tests.support.kafka.sender import Sender, logged

pytestmark = [pytest.mark.component("kafka"), pytest.mark.timeout(900)]

LONG_S = 180.0
CONFIG = """
[ingest]
gather_window = "10ms"
retry_after = "200ms"
[ingest.kafka]
append_timeout = "3s"
[ingest.spool]
after = "500ms"
"""


@pytest.fixture
def running() -> Iterator[ExitStack]:
    """What is pushed here is killed at the end."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def place(broker: Cluster) -> KafkaPlace:
    return KafkaPlace(broker, KafkaWriterSettings())


def start(running: ExitStack, command: Command) -> Command:
    command.launch()
    running.callback(command.kill)
    return command


def target_of(command: Command) -> str:
    return command.wait_for(r"OTLP/gRPC +(\S+)")


def metric(command: Command, name: str) -> float:
    """Summed over the processes of a command; 0 from one that does not answer."""
    total = 0.0
    for url in re.findall(r"metrics +(\S+)", command.output_of_newest()):
        with suppress(OSError), urllib.request.urlopen(url, timeout=30) as response:
            text = response.read().decode()
            total += sum(
                float(line.rpartition(" ")[2]) for line in text.splitlines() if re.match(name + r"[ {]", line)
            )
    return total


async def until(holds: Callable[[], Awaitable[bool]], what: str) -> None:
    try:
        async with asyncio.timeout(LONG_S):
            while not await holds():  # noqa: ASYNC110 - of other processes there is no event
                await asyncio.sleep(0.2)
    except TimeoutError:
        raise AssertionError(f"waited for in vain: {what}") from None


async def all_logged(place: KafkaPlace, wanted: set[bytes]) -> None:
    async def are_there() -> bool:
        try:
            return wanted <= set(await logged(place))
        except (KafkaError, TimeoutError):  # a broker that stood still may need a while
            return False

    await until(are_there, "every acknowledged span is in the topic")


async def test_what_was_acknowledged_without_kafka_is_there_once_after_kill_9(
    broker: Cluster, tmp_path: Path, running: ExitStack
) -> None:
    place, sender = KafkaPlace(broker), Sender()
    receiver = start(running, ingest(tmp_path, place.url, CONFIG))
    enough = asyncio.Event()
    target = target_of(receiver)
    await sender.send(target, 100)
    sending = asyncio.create_task(sender.send_until(target, enough))
    try:
        await asyncio.to_thread(broker.nodes[0].stop, signal.SIGKILL)
        before = len(sender.acknowledged)

        async def more() -> bool:
            return len(sender.acknowledged) > before + 2_000

        await until(more, "acknowledged while Kafka is away")
        assert await asyncio.to_thread(metric, receiver, "meshflow_spool_records") > 0
        await asyncio.to_thread(receiver.kill)
        enough.set()
        await sending
    finally:
        await broker.nodes[0].start_beside()
    assert not sender.retry_s, "nothing was refused while the spool had room"
    receiver.launch()
    await sender.send(target_of(receiver), 100)
    await all_logged(place, sender.acknowledged)
    copies = {span: times for span, times in (await logged(place)).items() if times > 1}
    assert not copies

    async def nothing_is_spooled() -> bool:
        return await asyncio.to_thread(metric, receiver, "meshflow_spool_records") == 0

    await until(nothing_is_spooled, "the spool is drained")
    assert await asyncio.to_thread(receiver.stop) == 0, receiver.output()


async def test_ingest_starts_without_kafka_and_refuses_when_its_spool_is_full(
    broker: Cluster, tmp_path: Path, running: ExitStack
) -> None:
    place, sender = KafkaPlace(broker), Sender()
    await (await place.open_writer({"otlp_spans": 4, "otlp_metrics": 4, "otlp_logs": 4})).close()
    await asyncio.to_thread(broker.nodes[0].stop, signal.SIGKILL)
    try:
        receiver = start(running, ingest(tmp_path, place.url, CONFIG + "max_size = 20000\n"))
        target = target_of(receiver)

        async def is_full() -> bool:
            await sender.send(target, 50)
            return bool(sender.retry_s)

        await until(is_full, "the spool is full")
        assert sender.acknowledged
        assert sender.retry_s == {0.2}
    finally:
        await broker.nodes[0].start_beside()
    await all_logged(place, sender.acknowledged)
    ids = await logged(place)
    assert set(ids) == sender.acknowledged
    assert max(ids.values()) == 1

    async def counted() -> bool:
        reader = await place.open_reader("counts")
        try:
            refused = 0
            for tp in await reader.partitions():
                refused += sum(
                    record.headers.get("refused", 0) for record in await reader.read(tp, 0, 1 << 40)
                )
        finally:
            await reader.close()
        return refused == len(sender.refused)

    await until(counted, "what was refused is counted in the log")
    assert await asyncio.to_thread(metric, receiver, "meshflow_ingest_refused_items_total") == len(
        sender.refused
    )
    assert await asyncio.to_thread(receiver.stop) == 0, receiver.output()


async def test_a_stop_without_kafka_leaves_what_was_acknowledged_for_the_next_start(
    broker: Cluster, tmp_path: Path, running: ExitStack
) -> None:
    place, sender = KafkaPlace(broker), Sender()
    receiver = start(running, ingest(tmp_path, place.url, CONFIG))
    await sender.send(target_of(receiver), 20)
    broker.nodes[0].pause()
    try:
        await sender.send(target_of(receiver), 100)
        assert await asyncio.to_thread(receiver.stop) == 0, receiver.output()
        receiver.launch()
        await sender.send(target_of(receiver), 100)
    finally:
        broker.nodes[0].resume()
    assert not sender.refused
    await all_logged(place, sender.acknowledged)
    assert max((await logged(place)).values()) == 1
    assert await asyncio.to_thread(receiver.stop) == 0, receiver.output()


async def test_workers_share_ports_and_one_that_is_killed_loses_nothing(
    place: KafkaPlace, tmp_path: Path, running: ExitStack
) -> None:
    sender = Sender()
    receiver = start(running, ingest(tmp_path, place.url, CONFIG, workers=3))
    target = target_of(receiver)
    enough = asyncio.Event()
    sending = asyncio.create_task(sender.send_until(target, enough))
    assert receiver.process is not None
    for number in range(3):
        await at_least(sender, 1000 * (number + 1))
        os.kill(children(receiver.process.pid)[0], signal.SIGKILL)
        there_again = rf"(?s)(?:worker \d is there again.*){{{number + 1}}}"

        async def is_there_again(pattern: str = there_again) -> bool:
            return re.search(pattern, receiver.output()) is not None

        await until(is_there_again, "the worker is started again")
    await at_least(sender, 5000)
    enough.set()
    await sending
    await all_logged(place, sender.acknowledged)
    assert max((await logged(place)).values()) == 1
    assert await asyncio.to_thread(receiver.stop) == 0, receiver.output()


async def at_least(sender: Sender, spans: int) -> None:
    async def are_acknowledged() -> bool:
        return len(sender.acknowledged) >= spans

    await until(are_acknowledged, f"{spans} spans are acknowledged")


async def test_spools_of_killed_workers_are_drained_though_there_are_fewer_now(
    broker: Cluster, tmp_path: Path, running: ExitStack
) -> None:
    place, sender = KafkaPlace(broker), Sender()
    receiver = start(running, ingest(tmp_path, place.url, CONFIG, workers=3))
    target = target_of(receiver)
    await sender.send(target, 30)
    broker.nodes[0].pause()
    try:

        async def all_spools() -> bool:
            await sender.send(target, 60, at_once=20)
            return len(list((tmp_path / "spool").glob("*/*.spool"))) >= 3

        await until(all_spools, "each worker has something in its spool")
        assert receiver.process is not None
        parent, workers = receiver.process.pid, children(receiver.process.pid)
        assert len(workers) == 3
        for process in (parent, *workers):
            os.kill(process, signal.SIGKILL)
        receiver.process.wait()
    finally:
        broker.nodes[0].resume()
    fewer = start(running, ingest(tmp_path, place.url, CONFIG))
    target_of(fewer)
    await all_logged(place, sender.acknowledged)
    assert max((await logged(place)).values()) == 1

    async def nothing_is_left() -> bool:
        return not list((tmp_path / "spool").glob("*/*.spool"))

    await until(nothing_is_left, "every spool is drained")
    assert await asyncio.to_thread(fewer.stop) == 0, fewer.output()


async def test_workers_end_with_their_parent(place: KafkaPlace, tmp_path: Path, running: ExitStack) -> None:
    receiver = start(running, ingest(tmp_path, place.url, CONFIG, workers=2))
    target_of(receiver)
    assert receiver.process is not None
    workers = children(receiver.process.pid)
    assert len(workers) == 2
    receiver.kill()

    async def are_gone() -> bool:
        return not any(map(is_alive, workers))

    await until(are_gone, "the workers have ended")


async def test_a_port_in_use_is_reported_once_for_all_workers(
    place: KafkaPlace, tmp_path: Path, running: ExitStack
) -> None:
    receiver = start(running, ingest(tmp_path, place.url, CONFIG))
    port = target_of(receiver).rpartition(":")[2]
    arguments = (
        "--grpc-port",
        port,
        "--http-port",
        "0",
        "--metrics-port",
        "0",
        "--spool",
        str(tmp_path / "spool"),
    )
    second = start(
        running, Command(tmp_path, "second", place.url, "ingest", "--workers", "2", *arguments, config=CONFIG)
    )
    assert second.process is not None
    assert await asyncio.to_thread(second.process.wait, LONG_S) == 1
    assert second.output().count("OTLP/gRPC cannot listen on 127.0.0.1:" + port) == 1
    assert await asyncio.to_thread(receiver.stop) == 0, receiver.output()


def children(pid: int) -> list[int]:
    """Process ids of a process's children."""
    text = "".join(file.read_text() for file in Path(f"/proc/{pid}/task").glob("*/children"))
    return [int(child) for child in text.split()]


def is_alive(pid: int) -> bool:
    """Not where it has ended and nobody has looked at its exit code yet: in a container there may be nobody
    to do so.
    """
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"
