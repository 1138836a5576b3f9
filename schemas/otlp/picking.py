"""An OTLP message with some of its items alone. Rare (rows that the database refuses), so in plain Python."""

from collections.abc import Callable, Collection
from itertools import count

from schemas import topics
from schemas.otlp.wire import Field, fields, framed

_AROUND = ((1,), (2,), (2,))
"""Fields that lead to spans and log records, and to metrics."""
_TO_POINTS = ((5, 7, 9, 10, 11), (1,))


def pick(topic: str, message: bytes, items: Collection[int]) -> bytes:
    """The message with the spans, log records or data points of these numbers, each within its resource and
    scope (and metric), nothing re-encoded; items are numbered in the order of decoding.

    The message must be well-formed (it was decoded).
    """
    levels = (*_AROUND, *_TO_POINTS) if topic == topics.METRICS else _AROUND
    numbers = count()
    return _pick(message, 0, len(message), levels, lambda: next(numbers) in items) or b""


def _pick(
    data: bytes,
    begin: int,
    end: int,
    levels: tuple[tuple[int, ...], ...],
    takes_next: Callable[[], bool],
) -> bytes | None:
    """A message's body with what is left of its fields that lead to items; None: no item is left."""
    leading, *inner = levels
    own = list(fields(data, begin, end))
    ignored = _replaced(own, leading)
    kept, has_items = list[bytes](), False
    for field in own:
        part: bytes | None = data[field.begin : field.end]
        if _leads(field, leading):
            if field in ignored:
                continue
            if inner:
                body = _pick(data, field.value, field.end, tuple(inner), takes_next)
                part = None if body is None else framed(field.number, body)
            elif not takes_next():
                part = None
            has_items |= part is not None
        if part is not None:
            kept.append(part)
    return b"".join(kept) if has_items else None


def _leads(field: Field, leading: tuple[int, ...]) -> bool:
    return field.is_length_delimited and field.number in leading


def _replaced(own: list[Field], leading: tuple[int, ...]) -> set[Field]:
    """Of several kinds of data of a metric the last one counts: the fields of those before it."""
    data = [field for field in own if _leads(field, leading)]
    borders = [at for at in range(1, len(data)) if data[at].number != data[at - 1].number]
    return set(data[: borders[-1]]) if borders else set()
