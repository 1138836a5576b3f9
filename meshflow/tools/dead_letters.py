"""``meshflow dead-letters``: look at what processing set aside, and send it again; on the embedded log and on
Kafka alike.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from log.kafka.dead_letter_reader import KafkaDeadLetterReader
from log.kafka.writer import KafkaLogWriter
from log.sqlite import schema as sqlite_format
from log.sqlite.dead_letters import SqliteDeadLetters
from log.sqlite.retention import Limits
from log.sqlite.writer import SqliteLogWriter
from meshflow.run.replays import OWN_TOPICS, NotReplayable, appends_of, note, with_payload
from meshflow.settings import Settings
from schemas.dead_letters import DeadLetterReader, Found, LetterId, Selection, StoredLetter
from schemas.errors import LogUnavailable, MeshflowError
from schemas.otlp.readable import readable
from schemas.records import LogWriter
from schemas.topics import TOPICS
from schemas.units import NS_PER_S
from storage.settings import SqliteLog

_BATCH = 20
_PATIENCE_S = 30.0
_POLL_S = 0.2


class NoSuchLetter(MeshflowError):
    """There is no dead letter of this name."""


@dataclass(slots=True)
class Replayed:
    """What became of a replay."""

    replayed: list[LetterId] = field(default_factory=list)
    waiting: list[LetterId] = field(default_factory=list)
    """Asked of the running ``up``, which has not done it yet."""
    refused: list[tuple[LetterId, str]] = field(default_factory=list)
    """Not sent, and why."""


def find(settings: Settings, selection: Selection) -> Found:
    """The chosen letters, without payloads. Raises LogUnavailable."""

    async def run() -> Found:
        async with _reader(settings) as reader:
            return await reader.find(selection)

    return asyncio.run(run())


def load(settings: Settings, ids: Sequence[LetterId]) -> list[StoredLetter]:
    """Letters with their payloads; one that was too large to keep is looked for in the embedded log.

    Raises NoSuchLetter, LogUnavailable.
    """

    async def run() -> list[StoredLetter]:
        async with _reader(settings) as reader:
            return await _load(settings, reader, ids)

    letters = asyncio.run(run())
    known = {letter.id for letter in letters}
    if missing := [str(id_) for id_ in ids if id_ not in known]:
        raise NoSuchLetter(
            f"there is no dead letter {', '.join(missing)}; `meshflow dead-letters list` names all"
        )
    return letters


def replay(settings: Settings, selection: Selection) -> Replayed:
    """Send letters into the log again; those that were replayed before only where they are chosen by name.

    Raises NoSuchLetter where one is named that is not there, LogUnavailable.
    """
    return asyncio.run(_replay(settings, selection))


def describe(letter: StoredLetter, max_chars: int = 1 << 20) -> str:
    """All that is known of a letter, as text."""
    lines = [
        str(letter.id),
        f"  time      {log_time(letter.append_time_ns)}",
        f"  size      {letter.size} bytes, payload {letter.extent}",
        f"  reason    {plain(letter.reason)}",
        *([f"  key       {letter.key.hex()}"] if letter.key else []),
        *(f"  {name:<9} {plain(text)}" for name, text in sorted(letter.labels.items())),
        *([f"  {plain(letter.replayed)}"] if letter.replayed else []),
    ]
    if letter.payload:
        topic = next((topic for topic in TOPICS if letter.id.topic.endswith(topic)), letter.id.topic)
        lines.append(readable(topic, letter.payload, max_chars))
    return "\n".join(lines)


def log_time(append_time_ns: int) -> str:
    """A log time for people."""
    try:
        return f"{datetime.fromtimestamp(append_time_ns // NS_PER_S, UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (OverflowError, ValueError, OSError):
        return f"{append_time_ns} ns"


def plain(text: str) -> str:
    """Text of others without what moves a terminal's cursor."""
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)


@asynccontextmanager
async def _reader(settings: Settings) -> AsyncIterator[DeadLetterReader]:
    place = settings.storage.log_place
    reader: DeadLetterReader
    if isinstance(place, SqliteLog):
        if not (place.directory / sqlite_format.FILE).exists():
            raise LogUnavailable(f"there is no log in {place.directory}; say --data or MESHFLOW_LOG")
        reader = SqliteDeadLetters(place.directory)
    else:
        reader = KafkaDeadLetterReader(place.bootstrap, place.prefix, settings.kafka)
    try:
        yield reader
    finally:
        await reader.close()


async def _load(settings: Settings, reader: DeadLetterReader, ids: Sequence[LetterId]) -> list[StoredLetter]:
    selection = Selection(ids=frozenset(ids), limit=10 * len(ids))
    letters = (await reader.find(selection, payloads=True)).letters
    place = settings.storage.log_place
    if not isinstance(place, SqliteLog):
        return letters
    return [await with_payload(place.directory, letter) for letter in letters]


async def _replay(settings: Settings, selection: Selection) -> Replayed:
    result = Replayed()
    async with _reader(settings) as reader:
        chosen = selection if selection.ids is not None else replace(selection, replayed=False)
        ids = list(dict.fromkeys(letter.id for letter in (await reader.find(chosen)).letters))
        if selection.ids is not None and (missing := selection.ids - set(ids)):
            names = ", ".join(map(str, sorted(missing)))
            raise NoSuchLetter(f"there is no dead letter {names}; `meshflow dead-letters list` names all")
        if ids:
            async with _log_writer(settings) as writer:
                for begin in range(0, len(ids), _BATCH):
                    letters = await _load(settings, reader, ids[begin : begin + _BATCH])
                    await _send(settings, reader, writer, letters, result)
        if result.waiting:
            assert isinstance(reader, SqliteDeadLetters)
            await _wait(reader, result)
    return result


async def _send(
    settings: Settings,
    reader: DeadLetterReader,
    writer: LogWriter | None,
    letters: Sequence[StoredLetter],
    result: Replayed,
) -> None:
    """Append letters; where another process writes the log (no ``writer``), ask it to."""
    for letter in {letter.id: letter for letter in letters}.values():
        try:
            appends = appends_of(letter, log_topics(settings), settings.processing.partitions)
        except NotReplayable as error:
            result.refused.append((letter.id, str(error)))
            continue
        if writer is not None:
            await writer.append(appends)
            await reader.mark_replayed([letter], note())
            result.replayed.append(letter.id)
        else:
            assert isinstance(reader, SqliteDeadLetters)
            await reader.ask([letter])
            result.waiting.append(letter.id)


async def _wait(reader: SqliteDeadLetters, result: Replayed) -> None:
    """Until the process that writes the log has replayed what was asked of it, or its time is over."""
    end_s = asyncio.get_running_loop().time() + _PATIENCE_S
    while result.waiting and asyncio.get_running_loop().time() < end_s:
        await asyncio.sleep(_POLL_S)
        waiting = {letter.id for letter in await reader.asked(limit=1 << 30, payloads=False)}
        result.replayed += [id_ for id_ in result.waiting if id_ not in waiting]
        result.waiting = [id_ for id_ in result.waiting if id_ in waiting]


def log_topics(settings: Settings) -> Mapping[str, str]:
    """A dead letter's topic -> the log's topic that it is for: the log's own, and those of `repartition`."""
    place = settings.storage.log_place
    if isinstance(place, SqliteLog):
        return OWN_TOPICS
    repartition = settings.processing.repartition
    return {
        **{repartition.source_prefix + name: topic for name, topic in repartition.sources.items()},
        **{place.prefix + topic: topic for topic in TOPICS},
    }


@asynccontextmanager
async def _log_writer(settings: Settings) -> AsyncIterator[LogWriter | None]:
    """A writer of the log; None where a running ``up`` is its only one."""
    place = settings.storage.log_place
    writer: LogWriter
    if isinstance(place, SqliteLog):
        storage = settings.storage
        try:
            limits = Limits(storage.log_retention, storage.log_max_bytes)
            writer = SqliteLogWriter(place.directory, storage.log_topics(), limits)
        except sqlite_format.LogInUse:
            yield None
            return
    else:
        topics = dict.fromkeys(TOPICS, settings.processing.partitions)
        writer = await KafkaLogWriter.open(
            place.bootstrap, topics, settings.ingest.kafka, place.prefix, settings.kafka
        )
    try:
        yield writer
    finally:
        await writer.close()
