"""How much of attributes is taken: one set of them may be written to as many rows as there are items."""

from collections.abc import Mapping
from typing import NamedTuple

CUT_KEY = "meshflow.cut"
"""The attribute that says what was left out of its set, ``3 bytes, 1 keys``; a sender's own attribute of this
name gives way to it, or goes last.
"""


class Limits(NamedTuple):
    """Sizes are bytes of UTF-8; texts are cut between two characters."""

    value_bytes: int = 64 << 10
    """Most bytes of an attribute's key (a longer one is left out) and value, and of a text of a resource,
    scope or metric.
    """
    set_bytes: int = 256 << 10
    """Most bytes of the keys and values of one set; entries that do not fit are left out."""
    set_entries: int = 1_000
    """Most entries of one set; the first ones stay."""


DEFAULT_LIMITS = Limits()


class Cutter:
    """Cuts attributes and texts, one at a time, and counts them: as plain as can be."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.cut = 0

    def text(self, text: str) -> str:
        """A text that is repeated in rows."""
        kept = self._within(text)
        self.cut += kept != text
        return kept

    def attributes(self, attributes: Mapping[str, str]) -> dict[str, str]:
        """A set of attributes, the mark last where something is left out."""
        kept: dict[str, str] = {}
        size = left_bytes = left_keys = 0
        for key, text in attributes.items():
            if key == CUT_KEY:
                continue
            value, key_bytes = self._within(text), len(key.encode())
            length = key_bytes + len(value.encode())
            is_over = key_bytes > self._limits.value_bytes or len(kept) == self._limits.set_entries
            if is_over or size + length > self._limits.set_bytes:
                left_keys += 1
                continue
            kept[key] = value
            size += length
            left_bytes += len(text.encode()) - len(value.encode())
        if left_bytes or left_keys:
            self.cut += 1
            kept[CUT_KEY] = f"{left_bytes} bytes, {left_keys} keys"
        elif CUT_KEY in attributes:
            kept[CUT_KEY] = self._within(attributes[CUT_KEY])
        return kept

    def _within(self, text: str) -> str:
        return text.encode()[: self._limits.value_bytes].decode(errors="ignore")
