"""What was last known of a log, in a file beside its folder (``log.seen`` for ``log``): so that a log whose
files vanished, were replaced, or went back in time is noticed at the next start (docs/adr/0036).

Written by rename, without fsync: after a power failure it may be older than the log, never newer.
"""

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from schemas.records import TopicPartition

_LOGGER = logging.getLogger(__name__)


class SeenPartition(NamedTuple):
    """A partition's id in the file, the offset of its next record, and what was committed (-1: nothing)."""

    id: int
    end: int
    committed: int


@dataclass(frozen=True, slots=True)
class Seen:
    """A log: ``identity`` is made once for each file."""

    identity: str
    partitions: dict[TopicPartition, SeenPartition]


def load(folder: Path) -> Seen | None:
    """What is known of the log in ``folder``; None where nothing is, or where it cannot be read."""
    try:
        fields = orjson.loads(_path(folder).read_bytes())
        partitions = {
            TopicPartition(_of(str, topic), _of(int, partition)): SeenPartition(
                *(_of(int, number) for number in rest)
            )
            for topic, partition, *rest in fields["partitions"]
        }
        return Seen(_of(str, fields["identity"]), partitions)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        _LOGGER.warning("%s cannot be read (%r): nobody knows whether the log is whole", _path(folder), error)
        return None


def save(folder: Path, seen: Seen) -> None:
    """Raises OSError."""
    path = _path(folder)
    partial = path.with_name(f"{path.name}.partial")
    rows = [[*tp, *known] for tp, known in seen.partitions.items()]
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(orjson.dumps({"identity": seen.identity, "partitions": rows}))
    partial.rename(path)


def _path(folder: Path) -> Path:
    folder = folder.absolute()
    return folder.with_name(f"{folder.name}.seen")


def _of(kind: type, value: Any) -> Any:
    if type(value) is not kind:
        raise ValueError(f"{value!r} is not a {kind.__name__}")
    return value
