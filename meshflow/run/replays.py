"""Dead letters go into the log again: as new records, split as receivers split them, marked with where they
come from.
"""

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from log.sqlite.dead_letters import SqliteDeadLetters
from log.sqlite.reader import SqliteLogReader
from schemas import otlp
from schemas.dead_letters import WHOLE, StoredLetter
from schemas.errors import LogFull, LogUnavailable, MalformedOtlp, MeshflowError, OffsetGone
from schemas.records import MAX_LABEL_BYTES, Append, LogWriter, TopicPartition
from schemas.topics import TOPICS

_LOGGER = logging.getLogger(__name__)

_EVERY_S = 1.0

OWN_TOPICS = {topic: topic for topic in TOPICS}
"""A dead letter's topic -> the log's, where no other log's records were read."""


class NotReplayable(MeshflowError):
    """A letter cannot be sent again; the text says why."""


def appends_of(letter: StoredLetter, topics: Mapping[str, str], partitions: int) -> list[Append]:
    """The records that a letter becomes. ``topics``: a letter's topic -> the log's.

    Raises NotReplayable: the letter has no whole payload, it is not OTLP, or nothing in it has valid ids.
    """
    topic = topics.get(letter.id.topic)
    if topic is None:
        raise NotReplayable(f"its topic {letter.id.topic} is none that this log is filled from")
    if letter.extent != WHOLE:
        raise NotReplayable(f"its payload is {letter.extent}, and the log has let the record go")
    try:
        split = otlp.split(topic, letter.payload, partitions)
    except MalformedOtlp as error:
        raise NotReplayable(f"it is not OTLP, and would be refused again: {error}") from error
    if not split.parts:
        raise NotReplayable(split.reason or "there is nothing in it")
    labels = {**letter.labels, "replay_of": str(letter.id)[-MAX_LABEL_BYTES:]}
    first = min(split.parts)
    return [
        Append(
            TopicPartition(topic, partition),
            part,
            {"rejected": split.rejected} if split.rejected and partition == first else {},
            labels,
        )
        for partition, part in sorted(split.parts.items())
    ]


async def with_payload(log: Path, letter: StoredLetter) -> StoredLetter:
    """The letter; where its payload was too large to keep, with that of the embedded log in ``log``."""
    if letter.extent == WHOLE:
        return letter
    try:
        reader = SqliteLogReader(log)
    except LogUnavailable:
        return letter
    try:
        tp = TopicPartition(letter.id.topic, letter.id.partition)
        records = await reader.read(tp, letter.id.offset, 1)
        if records and records[0].append_time_ns == letter.append_time_ns:
            return replace(letter, payload=records[0].unpack(), extent=WHOLE)
    except (OffsetGone, LogUnavailable, MalformedOtlp):
        return letter
    finally:
        await reader.close()
    return letter


async def keep_replaying(log: Path, letters: SqliteDeadLetters, writer: LogWriter, partitions: int) -> None:
    """Replay what `meshflow dead-letters replay` asks for, until cancelled; this process is the writer of the
    log in the folder ``log``.
    """
    warned_of = ""
    while True:
        await asyncio.sleep(_EVERY_S)
        try:
            await _replay_asked(log, letters, writer, partitions)
        except (LogUnavailable, LogFull) as error:
            if str(error) != warned_of:
                _LOGGER.warning("dead letters are replayed later: %s", error)
            warned_of = str(error)


async def _replay_asked(log: Path, letters: SqliteDeadLetters, writer: LogWriter, partitions: int) -> None:
    for letter in await letters.asked():
        try:
            appends = appends_of(await with_payload(log, letter), OWN_TOPICS, partitions)
        except NotReplayable as error:
            _LOGGER.warning("dead letter %s is not replayed: %s", letter.id, error)
            await letters.unask(letter)
            continue
        await writer.append(appends)
        await letters.mark_replayed([letter], note())


def note() -> str:
    """What a replayed letter is marked with."""
    return f"replayed {datetime.fromtimestamp(time.time(), UTC):%Y-%m-%d %H:%M:%S} UTC"
