"""An OTLP message larger than the log's records may be -> several, along the borders of its items. Rare, so
in plain Python.
"""

from collections.abc import Iterator

from schemas.otlp.wire import Field, fields, framed, submessages

_INNER = 2
"""ResourceSpans.scope_spans, ScopeSpans.spans; logs and metrics have the same numbers."""

_RESOURCES = 1
"""TracesData.resource_spans; logs and metrics too."""

_FRAME_BYTES = 24
"""Room for the tags and lengths of the three messages around an item (at most 6 bytes each), and some."""


def cut(message: bytes, limit: int) -> list[bytes]:
    """TracesData, MetricsData or LogsData in pieces of at most ``limit`` bytes, in order, no item re-encoded.

    Each piece repeats resource, scope and schema URL of its items. A single item over the limit is a piece of
    its own. The message must be well-formed (``schemas.otlp.split`` made it).
    """
    if len(message) <= limit:
        return [message]
    pieces: list[bytes] = []
    piece = _Piece()
    for resource, scope, item in _items(message):
        size = (
            len(item)
            if piece.fits_in(resource, scope)
            else len(resource) + len(scope) + len(item) + _FRAME_BYTES
        )
        if piece.size and piece.size + size > limit:
            pieces.append(piece.finish())
            piece = _Piece()
            size = len(resource) + len(scope) + len(item) + _FRAME_BYTES
        piece.add(resource, scope, item, size)
    return [*pieces, piece.finish()]


class _Piece:
    """Items that follow one another; those of one scope share its message."""

    def __init__(self) -> None:
        self.size = 0
        self._done: list[bytes] = []
        self._around: tuple[bytes, bytes] | None = None
        self._items: list[bytes] = []

    def fits_in(self, resource: bytes, scope: bytes) -> bool:
        return self._around == (resource, scope)

    def add(self, resource: bytes, scope: bytes, item: bytes, size: int) -> None:
        if not self.fits_in(resource, scope):
            self._close_scope()
            self._around = (resource, scope)
        self._items.append(item)
        self.size += size

    def finish(self) -> bytes:
        self._close_scope()
        return b"".join(self._done)

    def _close_scope(self) -> None:
        if self._around is not None:
            resource, scope = self._around
            self._done.append(framed(_RESOURCES, resource + framed(_INNER, scope + b"".join(self._items))))
        self._items = []


def _items(message: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """For each item: the fields of its resource message and of its scope message that are no items, and the
    item with its tag.
    """
    for outer in submessages(message, 0, len(message), _RESOURCES):
        resource = _rest(message, outer)
        for middle in submessages(message, outer.value, outer.end, _INNER):
            scope = _rest(message, middle)
            for item in submessages(message, middle.value, middle.end, _INNER):
                yield resource, scope, message[item.begin : item.end]


def _rest(message: bytes, outer: Field) -> bytes:
    return b"".join(
        message[field.begin : field.end]
        for field in fields(message, outer.value, outer.end)
        if not (field.number == _INNER and field.is_length_delimited)
    )
