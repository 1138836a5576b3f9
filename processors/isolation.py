"""Which records of a pane can't be processed (docs/adr/0033). Bisection: no I/O, and no knowledge of what is
done with records.

What is found is a function of the records and of what is done with them, so every reader finds the same.
"""

import asyncio
import ctypes
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, TypeVar

from processors.memory import give_back
from schemas.errors import BatchTooLarge, MalformedOtlp, ProcessingFailed

_T = TypeVar("_T")

_PASSING = (KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError, ProcessingFailed)
_REASON_CHARACTERS = 500
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{6,}")
_PROBE_BYTES = 256 << 20
"""A record is at most some MB, and all that is made of it some 32 times as much. Where so much can be had,
and a record alone still gets a MemoryError, it asks for more than a record may.
"""


@dataclass(frozen=True, slots=True)
class Fault:
    """Why some records could not be processed."""

    reason: str
    malformed: bool = False
    """The sender's fault, as decoding says; everything else may be a fault of meshflow's."""
    memory: bool = False
    is_over: bool = False
    """The records together would take more as rows than a pane may."""


def attempt(work: Callable[[], _T]) -> _T | Fault:
    """What ``work`` gives, or why it failed, whatever it raised (a Polars panic is a BaseException).

    Raises ProcessingFailed where memory is short, since then the records are not at fault; what ends a
    process or a task passes.
    """
    try:
        return work()
    except _PASSING:
        raise
    except MalformedOtlp as error:
        return Fault(_plain(str(error)), malformed=True)
    except BatchTooLarge as error:
        return Fault(str(error), malformed=True, is_over=True)
    except MemoryError as error:
        reason = _reason(error)
    except BaseException as error:
        return Fault(_reason(error))
    give_back()
    if not _memory_there():
        raise ProcessingFailed(
            f"memory is short ({reason}): give the process more, or lower processing.pane_bytes;"
            " nothing is lost, the next start goes on from here"
        )
    return Fault(reason, memory=True)


class Breaker:
    """Stops processing where too many records fail: then the fault is meshflow's, or of its settings.

    Malformed records do not count: a sender could stop processing with them.
    """

    def __init__(self, in_a_row: int, share: float, of_records: int) -> None:
        """Stops at ``in_a_row`` failing records without one between that passes, or when more than ``share``
        of the last ``of_records`` (or more) failed.
        """
        self._in_a_row = in_a_row
        self._share = share
        self._of_records = of_records
        self._row = 0
        self._records = 0
        self._failed = 0

    def passed(self, records: int) -> None:
        """So many records passed."""
        if records:
            self._row = 0
        self._add(records, 0)

    def failed(self, fault: Fault) -> None:
        """A record failed. Raises ProcessingFailed."""
        if fault.malformed:
            return
        self._row += 1
        self._add(1, 1)
        if self._row >= self._in_a_row:
            self._stop(f"{self._row} records in a row", fault)
        if self._records >= self._of_records and self._failed > self._share * self._records:
            self._stop(f"{self._failed} of the last {self._records} records", fault)

    def _add(self, records: int, failed: int) -> None:
        self._records += records
        self._failed += failed
        if self._records >= 2 * self._of_records:  # older records count half
            self._records //= 2
            self._failed //= 2

    def _stop(self, which: str, fault: Fault) -> None:
        raise ProcessingFailed(
            f"{which} could not be processed, the last one since: {fault.reason}. So many are a fault of"
            " meshflow or of its settings, not of the records: those of the last pane are not set aside, and"
            " the next start goes on there. Undo the last change (version, settings); to set such records"
            " aside nevertheless, raise processing.breaker"
        )


def isolate(
    records: Sequence[_T], fault_of: Callable[[Sequence[_T]], Fault | None], breaker: Breaker
) -> tuple[list[_T], list[tuple[_T, Fault]]]:
    """Of records that fail together, those that pass together, in order, and those at fault.

    ``fault_of`` says why some of them fail, None where they pass. Raises ProcessingFailed (the breaker; or
    records that pass alone do not fit into memory together).
    """
    search = _Search(fault_of, breaker)
    for half in _halves(records) if len(records) > 1 else [records]:
        search.apart(half)
    passing = [record for segment in search.segments for record in segment]
    if fault_of(passing) is not None:  # each passes alone, but not together
        passing = []
        for segment in search.segments:
            search.together(segment, passing)
    return passing, search.culprits


class _Search(Generic[_T]):
    def __init__(self, fault_of: Callable[[Sequence[_T]], Fault | None], breaker: Breaker) -> None:
        self.segments: list[Sequence[_T]] = []
        """Neighbours that pass by themselves."""
        self.culprits: list[tuple[_T, Fault]] = []
        self._fault_of = fault_of
        self._breaker = breaker

    def apart(self, part: Sequence[_T]) -> None:
        """Find what passes without the rest."""
        fault = self._fault_of(part)
        if fault is None:
            self.segments.append(part)
            self._breaker.passed(len(part))
        elif len(part) == 1:
            self._blame(part[0], fault)
        else:
            for half in _halves(part):
                self.apart(half)

    def together(self, part: Sequence[_T], passing: list[_T]) -> None:
        """Add to ``passing`` what passes with it."""
        fault = self._fault_of([*passing, *part])
        if fault is None:
            passing.extend(part)
        elif len(part) > 1:
            for half in _halves(part):
                self.together(half, passing)
        elif fault.memory:
            raise ProcessingFailed(
                f"the records of a pane do not fit into memory together ({fault.reason}): give the process"
                " more, or lower processing.pane_bytes; nothing is lost, the next start goes on from here"
            )
        else:
            self._blame(part[0], fault)

    def _blame(self, record: _T, fault: Fault) -> None:
        self._breaker.failed(fault)
        self.culprits.append((record, fault))


def _halves(part: Sequence[_T]) -> tuple[Sequence[_T], Sequence[_T]]:
    middle = len(part) // 2
    return part[:middle], part[middle:]


def _reason(error: BaseException) -> str:
    return _plain(f"{type(error).__name__}: {error}")


def _plain(text: str) -> str:
    """Short, Unicode, and equal in every process: a letter is known by its reason."""
    text = _ADDRESS.sub("0x...", text.encode(errors="replace").decode())
    return text if len(text) <= _REASON_CHARACTERS else text[:_REASON_CHARACTERS] + " ..."


def _memory_there() -> bool:
    """Whether the system gives _PROBE_BYTES more."""
    with suppress(MemoryError):
        ctypes.create_string_buffer(_PROBE_BYTES)
        return True
    return False
