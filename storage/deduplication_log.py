"""Mend the engine's memory of block names after a kill.

A MergeTree table writes a block's name into ``deduplication_logs/deduplication_log_N.txt`` and then renames
the new part into place (MergeTreeSink, MergeTreeDeduplicationLog of ClickHouse). A kill between the two
leaves a name without its part: the block would be dropped as a repetition though it was never stored. Parts
come one after the other under a lock, so only the last line can be such a name. It is taken out before the
engine opens the folder. (A server has the same gap; Replicated tables, whose names are in Keeper, have not.)
"""

import logging
import re
from pathlib import Path

_LOG = re.compile(r"deduplication_log_(\d+)\.txt")
_PART = re.compile(r"(?P<partition>[^_]+(?:_[^_]+)*?)_(?P<first>\d+)_(?P<last>\d+)_\d+(?:_\d+)?")
_LINE = re.compile(rb"[0-9]+\t[\w-]+\t[\x20-\x7e]*\n")
_ADD = "1"
_LOGGER = logging.getLogger(__name__)


def repair(folder: Path) -> list[str]:
    """Take out names without a part, and unfinished lines, in every table of a chdb folder that nobody has
    open. Returns the names.
    """
    removed = []
    for table in sorted(folder.glob("store/*/*/deduplication_logs")):
        logs = sorted(
            (int(match[1]), file) for file in table.iterdir() if (match := _LOG.fullmatch(file.name))
        )
        for _, log in reversed(logs):
            name, empty = _repair_log(log)
            if name:
                removed.append(name)
            if not empty:
                break
    return removed


def _repair_log(log: Path) -> tuple[str, bool]:
    """The name that was taken out ("" none), and whether the log was empty (then the one before it holds the
    last line).
    """
    _drop_garbled(log)
    content = log.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    lines = whole.splitlines(keepends=True)
    keep = len(whole)
    name = ""
    if lines:
        operation, part, name = lines[-1].decode().rstrip("\n").split("\t")
        if operation == _ADD and not _stored(log.parent.parent, part):
            keep -= len(lines[-1])
        else:
            name = ""
    if keep < len(content):
        with log.open("r+b") as file:
            file.truncate(keep)
    return name, not lines


def _drop_garbled(log: Path) -> None:
    """Leave out lines that are none, which would keep the engine from opening the table."""
    lines = log.read_bytes().splitlines(keepends=True)
    sound = [line for line in lines[:-1] if _LINE.fullmatch(line)]
    last = lines[-1:] if lines and (_LINE.fullmatch(lines[-1]) or not lines[-1].endswith(b"\n")) else []
    if garbled := len(lines) - len(sound) - len(last):
        partial = log.with_name(f"{log.name}.partial")
        partial.write_bytes(b"".join([*sound, *last]))
        partial.rename(log)
        _LOGGER.error(
            "%s is damaged: %d names of blocks are lost, and so a repetition of these blocks would be stored again;"
            " only blocks that an ended process had not committed are repeated",
            log,
            garbled,
        )


def _stored(table: Path, part: str) -> bool:
    """Whether the part, or a merged one that covers it, is in the table's folder."""
    wanted = _PART.fullmatch(part)
    if wanted is None:
        return True  # a form of name that this code does not know: leave it
    for entry in table.iterdir():
        found = _PART.fullmatch(entry.name)
        if (
            found
            and found["partition"] == wanted["partition"]
            and int(found["first"]) <= int(wanted["first"])
            and int(wanted["last"]) <= int(found["last"])
        ):
            return True
    return False
