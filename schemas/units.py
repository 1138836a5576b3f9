"""Durations and sizes as settings write them ("5s", "64MiB")."""

import re
from datetime import timedelta
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer

NS_PER_S = 1_000_000_000

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_UNIT_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_SIZE = re.compile(r"(\d+)\s*(B|KiB|MiB|GiB)?")
_UNIT_BYTES = {None: 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


def parse_duration(text: str) -> timedelta:
    """``"5s"``, ``"250ms"``, ``"1h30m"``, ``"7d"`` as a timedelta. Raises ValueError on anything else."""
    compact = text.replace(" ", "")
    parts = _DURATION.findall(compact)
    if not parts or "".join(number + unit for number, unit in parts) != compact:
        raise ValueError(f"{text!r} is not a duration; write it like 5s, 250ms, 1h30m or 7d")
    return timedelta(milliseconds=sum(float(number) * _UNIT_MS[unit] for number, unit in parts))


def format_duration(duration: timedelta) -> str:
    """The shortest spelling that :func:`parse_duration` reads back: ``5s``, ``1500ms``, ``7d``."""
    total_ms = round(duration.total_seconds() * 1000)
    for unit in ("d", "h", "m", "s"):
        if total_ms and total_ms % _UNIT_MS[unit] == 0:
            return f"{total_ms // _UNIT_MS[unit]}{unit}"
    return f"{total_ms}ms"


def parse_size(text: str) -> int:
    """``"64MiB"``, ``"1 GiB"``, ``"4096"`` in bytes. Raises ValueError on anything else."""
    match = _SIZE.fullmatch(text.strip())
    if not match:
        raise ValueError(f"{text!r} is not a size; write it like 64MiB, 1GiB or 4096")
    return int(match[1]) * _UNIT_BYTES[match[2]]


def format_size(size: int) -> str:
    """The spelling in the largest unit that divides it: ``64MiB``; plain bytes when none does."""
    for unit in ("GiB", "MiB", "KiB"):
        if size and size % _UNIT_BYTES[unit] == 0:
            return f"{size // _UNIT_BYTES[unit]}{unit}"
    return str(size)


def _duration(value: Any) -> Any:
    return parse_duration(value) if isinstance(value, str) else value


def _size(value: Any) -> Any:
    return parse_size(value) if isinstance(value, str) else value


def to_ns(duration: timedelta) -> int:
    """Whole nanoseconds of a duration."""
    return (duration.days * 86_400 + duration.seconds) * NS_PER_S + duration.microseconds * 1_000


Duration = Annotated[timedelta, BeforeValidator(_duration), PlainSerializer(format_duration, return_type=str)]
"""A timedelta that settings write as ``5s``."""

Size = Annotated[int, BeforeValidator(_size), PlainSerializer(format_size, return_type=str, when_used="json")]
"""A count of bytes that settings write as ``64MiB``."""
