"""The log time of records, decided from the log alone: a record stamped far ahead of its predecessor does not
move log time until later records confirm it. No I/O.

A log's stamps may be wrong: a clock that was ahead for a moment stamps one record an hour ahead, and its
partition would stand still for an hour. A jump also comes after a silence without ticks (nothing ran), and
then it is right. So a record that jumps is held, with those after it, until a record is stamped a pane after
it (the jump counts) or near its predecessor again (the held ones are of their predecessor's time).
"""

from dataclasses import dataclass, replace

from schemas.records import Record

JUMP_NS = 20 * 60 * 1_000_000_000
"""Log time may move by so much from one record to the next without being confirmed."""

_HELD_RECORDS = 10_000
_HELD_BYTES = 64 << 20
"""More records than so many are not held: the jump counts."""


@dataclass(frozen=True, slots=True)
class Stamped:
    """A record and its log time."""

    record: Record
    log_time_ns: int
    ahead: bool = False
    """Its stamp was ahead, and no later record has confirmed it."""


class Stamps:
    """Gives the records of one partition their log times, in order; some are held for a while."""

    def __init__(self, confirm_ns: int) -> None:
        """``confirm_ns``: how far the stamps after a jump must go on before the jump counts."""
        self._confirm_ns = confirm_ns
        self._newest_ns: int | None = None
        self._held: list[Stamped] = []
        self._held_bytes = 0

    def resume(self, log_time_ns: int) -> None:
        """The next record has this log time, whatever its stamp."""
        self._newest_ns = log_time_ns

    @property
    def newest_ns(self) -> int:
        """Newest log time; 0 before the first record."""
        return self._newest_ns or 0

    def add(self, record: Record) -> list[Stamped]:
        """Take a record; the records whose log time is known now."""
        stamp_ns = record.append_time_ns
        if self._newest_ns is None and not self._held:
            return self._hold(record)
        if self._newest_ns is not None and stamp_ns <= self._newest_ns + JUMP_NS:
            return [*self._refute(self._taken()), self._pass(record, stamp_ns)]
        self._held = [
            replace(each, ahead=True) if each.log_time_ns > stamp_ns + JUMP_NS else each
            for each in self._held
        ]
        going_on = [each.log_time_ns for each in self._held if not each.ahead]
        if self._newest_ns is None:  # the log's first record: the second one says whether it is far ahead
            self._newest_ns = going_on[0] if going_on else stamp_ns
            return self._confirm(record)
        if going_on and going_on[0] + self._confirm_ns <= stamp_ns <= going_on[-1] + JUMP_NS:
            return self._confirm(record)
        return self._hold(record)

    def _hold(self, record: Record) -> list[Stamped]:
        self._held.append(Stamped(record, record.append_time_ns))
        self._held_bytes += len(record.payload)
        if len(self._held) > _HELD_RECORDS or self._held_bytes > _HELD_BYTES:
            return self._confirm()
        return []

    def _confirm(self, *more: Record) -> list[Stamped]:
        """The first jump of the held ones counts. What follows it is looked at anew, as a reader that begins
        with it does.
        """
        held = self._taken()
        first = next((number for number, each in enumerate(held) if not each.ahead), len(held))
        known = self._refute(held[:first])
        known += [self._pass(each.record, each.log_time_ns) for each in held[first : first + 1]]
        for record in (*(each.record for each in held[first + 1 :]), *more):
            known += self.add(record)
        return known

    def _refute(self, held: list[Stamped]) -> list[Stamped]:
        return [Stamped(each.record, self.newest_ns, ahead=True) for each in held]

    def _taken(self) -> list[Stamped]:
        held, self._held, self._held_bytes = self._held, [], 0
        return held

    def _pass(self, record: Record, stamp_ns: int) -> Stamped:
        self._newest_ns = stamp_ns if self._newest_ns is None else max(self._newest_ns, stamp_ns)
        return Stamped(record, self._newest_ns)
