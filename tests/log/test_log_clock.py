import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from log.sqlite.clock import LogClock
from schemas.units import NS_PER_S


class Clocks:
    """A wall clock that may be set, and a monotonic one."""

    def __init__(self) -> None:
        self.wall_ns = 1_000 * NS_PER_S
        self.monotonic_ns = 7

    def go(self, seconds: float, step_s: float = 0) -> None:
        self.monotonic_ns += round(seconds * NS_PER_S)
        self.wall_ns += round((seconds + step_s) * NS_PER_S)

    def log_clock(self, newest_ns: int = 0) -> LogClock:
        return LogClock(newest_ns, lambda: self.wall_ns, lambda: self.monotonic_ns)


def test_it_is_the_wall_clock_as_long_as_that_goes_on() -> None:
    clocks = Clocks()
    clock = clocks.log_clock()
    for seconds, step_s in [(0, 0), (1, 0), (0.5, 3600), (2, 0)]:
        clocks.go(seconds, step_s)
        assert clock.now_ns() == clocks.wall_ns


def test_after_a_step_back_it_goes_on_and_the_wall_clock_catches_up() -> None:
    clocks = Clocks()
    clock = clocks.log_clock()
    before_ns = clock.now_ns()
    clocks.go(0, -60)
    for second in range(1, 600):
        clocks.go(1)
        assert clock.now_ns() == before_ns + second * NS_PER_S * 9 // 10
    clocks.go(10)
    assert clock.now_ns() == clocks.wall_ns


def test_a_start_behind_the_newest_record_goes_on_from_it() -> None:
    clocks = Clocks()
    newest_ns = clocks.wall_ns + 100 * NS_PER_S
    clock = clocks.log_clock(newest_ns)
    assert clock.now_ns() == newest_ns
    clocks.go(10)
    assert clock.now_ns() == newest_ns + 9 * NS_PER_S


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(-1e6, 1e6))))
def test_it_never_goes_back_and_stands_still_only_with_the_machine(moves: list[tuple[float, float]]) -> None:
    clocks = Clocks()
    clock = clocks.log_clock()
    last_ns = clock.now_ns()
    for seconds, step_s in moves:
        clocks.go(seconds, step_s)
        now_ns = clock.now_ns()
        assert now_ns - last_ns >= round(seconds * NS_PER_S) * 9 // 10
        last_ns = now_ns


def test_a_step_back_is_logged_once_and_its_end_too(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    clocks = Clocks()
    clock = clocks.log_clock()
    clock.now_ns()
    clocks.go(0, -60)
    for _ in range(700):
        clocks.go(1)
        clock.now_ns()
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "the clock is 60 s behind the log's newest record" in caplog.text


YEARS_S = 10 * 365 * 24 * 3_600.0


def test_a_moment_ten_years_ahead_leaves_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    clocks = Clocks()
    clock = clocks.log_clock()
    clock.now_ns()
    right_ns = clocks.wall_ns
    clocks.go(0, YEARS_S)
    for _ in range(50):
        clocks.go(1)
        right_ns += NS_PER_S
        assert clock.now_ns() == right_ns
    clocks.go(0, -YEARS_S)
    clocks.go(1)
    assert clock.now_ns() == clocks.wall_ns == right_ns + NS_PER_S
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "3650.0 days ahead" in caplog.text


def test_a_clock_that_stays_ahead_is_followed_after_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    clocks = Clocks()
    clock = clocks.log_clock(newest_ns=clocks.wall_ns - 3 * 24 * 3_600 * NS_PER_S)
    before_ns = clock.now_ns()
    for second in range(1, 60):
        clocks.go(1)
        assert clock.now_ns() == before_ns + second * NS_PER_S
    clocks.go(1)
    assert clock.now_ns() == clocks.wall_ns
    clocks.go(10)
    assert clock.now_ns() == clocks.wall_ns
    assert "log time follows the clock ahead" in caplog.text


def test_a_log_of_the_future_goes_on_and_says_what_to_do(caplog: pytest.LogCaptureFixture) -> None:
    clocks = Clocks()
    newest_ns = clocks.wall_ns + round(YEARS_S) * NS_PER_S
    clock = clocks.log_clock(newest_ns)
    clocks.go(10)
    assert clock.now_ns() == newest_ns + 9 * NS_PER_S
    assert "move the log's folder away" in caplog.text
