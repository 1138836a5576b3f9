"""How much of items is taken, and what their rows take: one attribute set may be written to as many rows as
there are items, and an item of two bytes becomes a row like any other.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from schemas.errors import BatchTooLarge

CUT_KEY = "meshflow.cut"
"""The attribute that says what was left out of its set and of its item, ``3 bytes, 1 keys``; a sender's own
attribute of this name gives way to it, or goes last.
"""

ITEM_BYTES = 256
"""What a span, data point or log record takes as a row, with its copies within the stages."""
DETAIL_BYTES = 64
"""What an event, a link or an exemplar takes."""
NUMBER_BYTES = 8
"""What a number of a distribution takes."""


class Limits(NamedTuple):
    """Sizes are bytes of UTF-8; texts are cut between two characters."""

    value_bytes: int = 64 << 10
    """Most bytes of an attribute's key (a longer one is left out) and value, and of any other text but a log
    record's body.
    """
    set_bytes: int = 256 << 10
    """Most bytes of the keys and values of one set (entries that do not fit are left out), and of a log
    record's body.
    """
    set_entries: int = 1_000
    """Most entries of one set; the first ones stay."""
    list_entries: int = 1_000
    """Most events or links of a span, most exemplars of a data point; the first ones stay."""
    batch_bytes: int = sys.maxsize
    """Most bytes that the rows of one batch take, by Weight."""


DEFAULT_LIMITS = Limits()


class Weight(NamedTuple):
    """What a payload has, without a row made of it."""

    items: int
    """Spans, data points or log records."""
    bytes: int
    """What its rows take, about: ITEM_BYTES, DETAIL_BYTES and NUMBER_BYTES for each that there is. The bytes
    that it has itself are not among them.
    """


@dataclass(slots=True)
class Left:
    """What was left out of an item."""

    bytes: int = 0
    """Of texts."""
    keys: int = 0
    """Attributes."""
    events: int = 0
    links: int = 0
    exemplars: int = 0

    def __bool__(self) -> bool:
        return self != Left()

    def __str__(self) -> str:
        """As the mark has it."""
        lists = {"events": self.events, "links": self.links, "exemplars": self.exemplars}
        more = (f", {count} {name}" for name, count in lists.items() if count)
        return f"{self.bytes} bytes, {self.keys} keys" + "".join(more)


class Cutter:
    """Cuts attributes and texts, one at a time, and counts them: as plain as can be."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.cut = 0

    def text(self, text: str) -> str:
        """A text that is repeated in rows."""
        kept = self._within(text)
        self.cut += kept != text
        return kept

    def own_text(self, text: str, left: Left, limit: int | None = None) -> str:
        """A text of one item, whose attributes have the mark."""
        kept = self._within(text, limit)
        left.bytes += len(text.encode()) - len(kept.encode())
        return kept

    def attributes(self, attributes: Mapping[str, str], of_item: Left | None = None) -> dict[str, str]:
        """A set of attributes, the mark last where something is left out of it, or of its item."""
        kept: dict[str, str] = {}
        left = of_item or Left()
        size = 0
        for key, text in attributes.items():
            if key == CUT_KEY:
                continue
            value, key_bytes = self._within(text), len(key.encode())
            length = key_bytes + len(value.encode())
            is_over = key_bytes > self.limits.value_bytes or len(kept) == self.limits.set_entries
            if is_over or size + length > self.limits.set_bytes:
                left.keys += 1
                continue
            kept[key] = value
            size += length
            left.bytes += len(text.encode()) - len(value.encode())
        if left:
            self.cut += 1
            kept[CUT_KEY] = str(left)
        elif CUT_KEY in attributes:
            kept[CUT_KEY] = self._within(attributes[CUT_KEY])
        return kept

    def check(self, size: int) -> None:
        """Raises BatchTooLarge for rows of this weight."""
        if size > self.limits.batch_bytes:
            raise BatchTooLarge("the rows of a batch would take more than they may")

    def _within(self, text: str, limit: int | None = None) -> str:
        limit = self.limits.value_bytes if limit is None else limit
        return text.encode()[:limit].decode(errors="ignore")
