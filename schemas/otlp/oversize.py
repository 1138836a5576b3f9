"""An OTLP message larger than the log's records may be -> several, along the borders of its items. Rare, so
in plain Python; call it off the event loop.
"""

from collections.abc import Iterator
from typing import NamedTuple

from schemas.otlp.wire import FRAME_BYTES, framed, submessages, without

_INNER = 2
"""ResourceSpans.scope_spans, ScopeSpans.spans; logs and metrics have the same numbers."""

_RESOURCES = 1
"""TracesData.resource_spans; logs and metrics too."""


class Pieces(NamedTuple):
    """What :func:`cut` makes."""

    messages: list[bytes]
    """Of the message's type, in its order."""
    left_out: int
    """Items (spans, log records, metrics) that no piece can hold."""


class _Item(NamedTuple):
    """An item with its tag, and the other fields of the resource message and of the scope message around
    it.
    """

    resource: bytes
    scope: bytes
    item: bytes


def cut(message: bytes, limit: int) -> Pieces:
    """TracesData, MetricsData or LogsData in pieces of at most ``limit`` bytes, in order, no item re-encoded.

    Each piece repeats resource, scope and schema URL of its items. Receivers take only what fits
    (``schemas.otlp.Split.record_bytes``): resource and scope in half of a piece, an item with them in a whole
    one. So all pieces together take at most five times the message and one piece. What does not fit (the
    limit was lowered meanwhile) is left out. The message must be well-formed (``schemas.otlp.split`` made
    it).
    """
    if len(message) <= limit:
        return Pieces([message], 0)
    pieces: list[bytes] = []
    piece = _Piece()
    left_out = 0
    for item in _items(message):
        if not _fits(item, limit):
            left_out += 1
            continue
        if piece.size and piece.size + piece.growth(item) > limit:
            pieces.append(piece.finish())
            piece = _Piece()
        piece.add(item)
    return Pieces([*pieces, piece.finish()] if piece.size or not pieces else pieces, left_out)


def _fits(item: _Item, limit: int) -> bool:
    around = len(item.resource) + len(item.scope)
    return FRAME_BYTES + around + max(around, len(item.item)) <= limit


class _Piece:
    """Items that follow one another; those of one resource and one scope share their messages."""

    def __init__(self) -> None:
        self.size = 0
        self._done: list[bytes] = []
        self._resource: bytes | None = None
        self._scopes: list[bytes] = []
        self._scope: bytes | None = None
        self._items: list[bytes] = []

    def growth(self, item: _Item) -> int:
        """How many bytes an item would add, at most."""
        if item.resource != self._resource:
            return len(item.resource) + len(item.scope) + len(item.item) + FRAME_BYTES
        return len(item.item) + (0 if item.scope == self._scope else len(item.scope) + FRAME_BYTES)

    def add(self, item: _Item) -> None:
        self.size += self.growth(item)
        if item.resource != self._resource:
            self._close_resource()
            self._resource = item.resource
        if item.scope != self._scope:
            self._close_scope()
            self._scope = item.scope
        self._items.append(item.item)

    def finish(self) -> bytes:
        self._close_resource()
        return b"".join(self._done)

    def _close_scope(self) -> None:
        if self._scope is not None:
            self._scopes.append(framed(_INNER, self._scope + b"".join(self._items)))
        self._scope = None
        self._items = []

    def _close_resource(self) -> None:
        self._close_scope()
        if self._resource is not None:
            self._done.append(framed(_RESOURCES, self._resource + b"".join(self._scopes)))
        self._resource = None
        self._scopes = []


def _items(message: bytes) -> Iterator[_Item]:
    for outer in submessages(message, 0, len(message), _RESOURCES):
        resource = without(message, outer, _INNER)
        for middle in submessages(message, outer.value, outer.end, _INNER):
            scope = without(message, middle, _INNER)
            for item in submessages(message, middle.value, middle.end, _INNER):
                yield _Item(resource, scope, message[item.begin : item.end])
