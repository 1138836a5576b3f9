"""How far a spool is drained, in a file of fixed size that is written in place: also on a disk that is
full.
"""

import errno
import os
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from schemas.records import TopicPartition

_SLOT_BYTES = 256 << 10
_SERIAL = struct.Struct("<Q")
_HEAD = struct.Struct("<QII")  # serial, length, CRC-32 of serial and text


@dataclass(frozen=True, slots=True)
class Progress:
    """Entries below ``drained`` are in the log. Those below ``sent`` may be: look from ``ends`` on, where
    partitions ended before.
    """

    drained: int = 0
    sent: int = 0
    ends: Mapping[TopicPartition, int] = field(default_factory=dict)


class ProgressFile:
    """Two slots, written in turn: a write that is cut off leaves the other one."""

    def __init__(self, path: Path) -> None:
        """Raises OSError."""
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if os.fstat(self._fd).st_size < 2 * _SLOT_BYTES:
            try:
                written = os.pwrite(self._fd, bytes(2 * _SLOT_BYTES), 0)
                os.fsync(self._fd)
            except OSError:
                os.close(self._fd)
                raise
            if written < 2 * _SLOT_BYTES:
                os.close(self._fd)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._serial = 0
        self.read_back = False
        """Whether there was something to read."""

    def read(self) -> Progress:
        """What was written last; nothing drained where no slot is whole."""
        known = [slot for slot in (self._read_slot(0), self._read_slot(1)) if slot is not None]
        if not known:
            return Progress()
        self._serial, text = max(known)
        self.read_back = True
        fields = orjson.loads(text)
        ends = {TopicPartition(topic, partition): end for topic, partition, end in fields["ends"]}
        return Progress(fields["drained"], fields["sent"], ends)

    def write(self, progress: Progress) -> None:
        """Return when it is on disk. Raises OSError."""
        self._serial += 1
        ends = [[*tp, end] for tp, end in progress.ends.items()]
        text = orjson.dumps({"drained": progress.drained, "sent": progress.sent, "ends": ends})
        slot = _HEAD.pack(self._serial, len(text), _checksum(self._serial, text)) + text
        if len(slot) > _SLOT_BYTES:
            raise OSError(f"{len(ends)} partitions are more than the spool can keep apart")
        os.pwrite(self._fd, slot, self._serial % 2 * _SLOT_BYTES)
        os.fsync(self._fd)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._fd)

    def _read_slot(self, slot: int) -> tuple[int, bytes] | None:
        head = os.pread(self._fd, _HEAD.size, slot * _SLOT_BYTES)
        if len(head) < _HEAD.size:
            return None
        serial, length, checksum = _HEAD.unpack(head)
        text = os.pread(self._fd, min(length, _SLOT_BYTES), slot * _SLOT_BYTES + _HEAD.size)
        return (
            (serial, text) if serial and len(text) == length and _checksum(serial, text) == checksum else None
        )


def _checksum(serial: int, text: bytes) -> int:
    return zlib.crc32(text, zlib.crc32(_SERIAL.pack(serial)))
