"""Which records are at fault, against a plain oracle; what passes through; when too many stop processing."""

import asyncio
from collections.abc import Sequence

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors import isolation
from processors.isolation import Breaker, Fault, attempt, isolate
from schemas.errors import MalformedOtlp, ProcessingFailed


def breaker(in_a_row: int = 10_000, share: float = 1.0, of_records: int = 10_000) -> Breaker:
    return Breaker(in_a_row, share, of_records)


@given(st.lists(st.booleans(), min_size=1, max_size=60))
def test_exactly_the_records_that_fail_are_culprits(bad: list[bool]) -> None:
    def fault_of(some: Sequence[int]) -> Fault | None:
        return Fault("bad") if any(bad[number] for number in some) else None

    passing, culprits = isolate(range(len(bad)), fault_of, breaker())
    assert passing == [number for number, is_bad in enumerate(bad) if not is_bad]
    assert sorted(number for number, _ in culprits) == [n for n, is_bad in enumerate(bad) if is_bad]


@given(st.lists(st.integers(1, 10), min_size=1, max_size=40), st.integers(10, 60))
def test_records_that_pass_alone_but_not_together_are_taken_in_order(sizes: list[int], limit: int) -> None:
    """As texts of more than 2 GiB together."""

    def fault_of(some: Sequence[int]) -> Fault | None:
        return Fault("too much") if sum(sizes[number] for number in some) > limit else None

    passing, culprits = isolate(range(len(sizes)), fault_of, breaker())
    assert passing == sorted(passing)
    assert sum(sizes[number] for number in passing) <= limit
    assert sorted([*passing, *(number for number, _ in culprits)]) == list(range(len(sizes)))
    room = limit
    for number, size in enumerate(sizes):  # the oracle: each that still fits
        if size <= room:
            room -= size
            assert number in passing


def raising(error: BaseException) -> object:
    raise error


def test_whatever_a_record_does_is_a_fault_also_a_panic_of_polars() -> None:
    def panic() -> object:
        return pl.Series([1]).map_elements(lambda _: raising(SystemError("x")), return_dtype=pl.Int64)

    for work in (panic, lambda: raising(OverflowError("2 GiB")), lambda: raising(BaseException("panicked"))):
        assert isinstance(attempt(work), Fault)
    assert attempt(lambda: raising(MalformedOtlp("no"))) == Fault("no", malformed=True)


def test_a_reason_is_the_same_in_every_process_and_may_be_written_anywhere() -> None:
    """A dead letter is known by its reason; an address in it would make two letters of one."""
    one, two = (
        attempt(lambda: raising(ValueError(f"{object()!r} of {object} \ud800 {'x' * 900}"))) for _ in "12"
    )
    assert isinstance(one, Fault)
    assert one == two
    assert "object object at 0x..." in one.reason
    assert len(one.reason.encode()) < 600
    assert attempt(lambda: raising(MalformedOtlp("\ud800"))) == Fault("?", malformed=True)


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), SystemExit(), asyncio.CancelledError(), ProcessingFailed("x")]
)
def test_what_ends_a_process_or_a_task_passes(error: BaseException) -> None:
    with pytest.raises(type(error)):
        attempt(lambda: raising(error))


def test_a_memory_error_is_a_records_fault_only_where_there_is_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = attempt(lambda: bytes(1 << 62))
    assert isinstance(found, Fault)
    assert found.memory
    monkeypatch.setattr(isolation, "_PROBE_BYTES", 1 << 62)  # no machine has it
    with pytest.raises(ProcessingFailed, match="memory is short"):
        attempt(lambda: bytes(1 << 62))


def test_records_that_do_not_fit_into_memory_together_stop_processing_and_are_not_set_aside() -> None:
    def fault_of(some: Sequence[int]) -> Fault | None:
        return Fault("MemoryError", memory=True) if len(some) > 5 else None

    with pytest.raises(ProcessingFailed, match="do not fit into memory together"):
        isolate(range(9), fault_of, breaker())


def test_too_many_faults_in_a_row_stop_processing_and_malformed_records_never_do() -> None:
    def fails(some: Sequence[int]) -> Fault | None:
        return Fault("a fault of ours") if some else None

    with pytest.raises(ProcessingFailed, match="10 records in a row"):
        isolate(range(50), fails, breaker(in_a_row=10))
    _, culprits = isolate(range(9), fails, breaker(in_a_row=10))
    assert len(culprits) == 9
    _, culprits = isolate(
        range(50), lambda some: Fault("no", malformed=True) if some else None, breaker(in_a_row=10)
    )
    assert len(culprits) == 50


def test_too_large_a_share_of_faults_stops_processing() -> None:
    def every_second_fails(some: Sequence[int]) -> Fault | None:
        return Fault("odd") if any(number % 2 for number in some) else None

    with pytest.raises(ProcessingFailed, match="of the last"):
        isolate(range(500), every_second_fails, breaker(share=0.4, of_records=100))
    isolate(range(500), every_second_fails, breaker(share=0.6, of_records=100))
