"""``meshflow dead-letters`` as its users meet it: on the log of a running ``up``, of one that ended, and on
Kafka.
"""

import asyncio
import json
import signal
import subprocess
from datetime import timedelta
from pathlib import Path

import pytest

from benchmarks.load import make_requests
from log.kafka.dead_letters import DeadLetterWriter
from log.sqlite.reader import SqliteLogReader
from log.sqlite.retention import Limits
from log.sqlite.writer import SqliteLogWriter
from schemas.otlp.readable import readable
from schemas.records import Append, DeadLetter, Record, TopicPartition
from schemas.topics import METRICS, SPANS, TOPICS
from tests.support.kafka.broker import Cluster
from tests.support.kafka.place import KafkaPlace
from tests.support.up import KEEP_ALL, LONG_S, MESHFLOW, ROOT, Up, eventually

BAD = b"\xff\xff \x1b[2J not OTLP"
SPANS_0 = TopicPartition(SPANS, 0)


def dead_letters(*arguments: str, code: int = 0, environ: dict[str, str] | None = None) -> str:
    """A command's standard output."""
    done = subprocess.run(
        [*MESHFLOW, "dead-letters", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=LONG_S,
        check=False,
        env=environ,
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout if not code else done.stdout + done.stderr


def listed(data: Path, *arguments: str) -> list[dict[str, object]]:
    lines = dead_letters("list", "--data", str(data), "--json", *arguments).splitlines()
    return [json.loads(line) for line in lines]


async def fill(data: Path, *values: bytes) -> None:
    """A log of these records in one partition of spans."""
    writer = SqliteLogWriter(data / "log", dict.fromkeys(TOPICS, 4), Limits(timedelta(days=1), 1 << 30))
    for value in values:
        await writer.append([Append(SPANS_0, value)])
    await writer.close()


def spans(number: int, seed: int) -> bytes:
    return b"".join(make_requests(number, 5, 5, 100, seed=seed))


async def labels_in(data: Path) -> list[dict[str, str]]:
    reader = SqliteLogReader(data / "log")
    try:
        return [
            dict(record.labels)
            for tp in await reader.partitions()
            for record in await reader.read(tp, await reader.beginning(tp), 1 << 40)
            if record.labels
        ]
    finally:
        await reader.close()


def test_letters_of_a_running_up_are_listed_shown_and_replayed(tmp_path: Path) -> None:
    config = f"[processing]\npane_bytes = '1MiB'\n[sampling]\n{KEEP_ALL}"
    up = Up(tmp_path, config, "--pane", "500ms", "--wait", "1")
    first, surplus = spans(1_000, 1), spans(1_500, 2)
    asyncio.run(fill(up.data, first, BAD, surplus))
    try:
        up.start()
        eventually(lambda: len(listed(up.data)) == 2, "both records are set aside")
        bad, left_out = listed(up.data)
        assert (bad["id"], bad["size"], bad["extent"]) == (f"{SPANS}/0/1", len(BAD), "whole")
        assert (left_out["id"], left_out["extent"]) == (f"{SPANS}/0/2", "left out")
        assert [letter["id"] for letter in listed(up.data, "--reason", "pane_bytes")] == [left_out["id"]]

        shown = dead_letters("show", str(bad["id"]), "--data", str(up.data))
        assert str(bad["reason"]) in shown
        assert "ff ff 20 1b 5b 32 4a" in shown
        assert "\x1b" not in shown
        shown = dead_letters("show", str(left_out["id"]), "--data", str(up.data))
        assert '"traceId": "' in shown, "the log still has the payload"

        said = dead_letters("replay", "--all", "--data", str(up.data), code=1)
        assert f"{left_out['id']}  replayed" in said
        assert f"{bad['id']}  not replayed: it is not OTLP" in said
        assert "1 of 2 letters were not replayed" in said
        ledger = up.wait_for(1_000 + 1 + 2 * 1_500)
        assert (ledger["rejected"], ledger["stored"]) == (1_501, 2_500)
        assert [bool(letter["replayed"]) for letter in listed(up.data)] == [False, True]
        assert listed(up.data, "--not-replayed") == [bad]
        assert "not replayed" in dead_letters("replay", "--all", "--data", str(up.data), code=1)
        marks = asyncio.run(labels_in(up.data))
        assert {label["replay_of"] for label in marks} == {left_out["id"]}
    finally:
        up.stop(signal.SIGTERM)
    said = dead_letters("replay", str(left_out["id"]), "--data", str(up.data))
    assert f"{left_out['id']}  replayed" in said, "by name once more, and without a running up"
    assert len(asyncio.run(labels_in(up.data))) > len(marks)


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("list", "--data", "/nowhere"), 1, "there is no log in /nowhere/log; say --data or MESHFLOW_LOG"),
        (("show", "otlp_spans/0", "--data", "/nowhere"), 2, "write TOPIC/PARTITION/OFFSET"),
        (("show", "otlp_spans/0/5", "--data", "{data}"), 1, "there is no dead letter otlp_spans/0/5"),
        (("replay", "otlp_spans/0/5", "--data", "{data}"), 1, "there is no dead letter otlp_spans/0/5"),
        (("replay", "--data", "{data}"), 2, "name the letters to replay, or say --all"),
    ],
)
def test_errors_say_what_to_do(tmp_path: Path, arguments: tuple[str, ...], code: int, text: str) -> None:
    asyncio.run(fill(tmp_path, b""))
    said = dead_letters(*(argument.format(data=tmp_path) for argument in arguments), code=code)
    assert text in said


@pytest.mark.component("kafka")
@pytest.mark.timeout(900)
def test_letters_on_kafka_are_listed_shown_and_replayed(
    broker: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = KafkaPlace(broker)
    good = spans(50, 3)
    monkeypatch.setenv("MESHFLOW_LOG", place.url)

    async def set_aside() -> None:
        letters = DeadLetterWriter(broker.bootstrap.split(","), place.prefix)
        await letters.write(SPANS_0, [DeadLetter(Record(7, 5, good, len(good)), "a fault of ours")])
        await letters.write(TopicPartition(METRICS, 1), [DeadLetter(Record(8, 6, BAD, len(BAD)), "not OTLP")])
        await letters.close()

    assert dead_letters("list", "--json") == ""
    asyncio.run(set_aside())
    names = [f"{place.prefix}{SPANS}/0/7", f"{place.prefix}{METRICS}/1/8"]
    assert [json.loads(line)["id"] for line in dead_letters("list", "--json").splitlines()] == names
    assert '"traceId": "' in dead_letters("show", names[0])
    said = dead_letters("replay", "--all", code=1)
    assert f"{names[0]}  replayed" in said
    assert f"{names[1]}  not replayed: it is not OTLP" in said

    async def records() -> list[Record]:
        reader = await place.open_reader()
        try:
            return [
                record
                for partition in range(4)
                for record in await reader.read(TopicPartition(SPANS, partition), 0, 1 << 30)
            ]
        finally:
            await reader.close()

    found = asyncio.run(records())
    assert {record.labels["replay_of"] for record in found} == {names[0]}
    assert sum(record.size for record in found) >= len(good)
    assert [
        json.loads(line)["id"] for line in dead_letters("list", "--json", "--not-replayed").splitlines()
    ] == names[1:]


def test_of_a_payload_all_is_shown_that_can_be_decoded() -> None:
    good, other = spans(1, 1), spans(1, 2)
    shown = readable(SPANS, good + b"\x0a\x03\xff\xff\xff" + other + b"rest")
    assert shown.count('"traceId": "') == 10
    assert "ResourceSpans of 3 bytes" in shown
    assert "not OTLP from here on" in shown
    assert "72 65 73 74" in shown
    assert readable(SPANS, b"") == "(empty)"
    assert len(readable(SPANS, good * 1_000, max_chars=10_000)) < 11_000
    assert "traceId" not in readable("foreign", good)
