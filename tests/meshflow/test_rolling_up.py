"""Roll-ups in the background: one that fails is told and made again, one that a stop cuts short is not."""

import asyncio

import pytest

from meshflow import wiring
from schemas.errors import SinkRejected, SinkUnavailable


async def test_a_roll_up_that_fails_is_told_but_not_when_a_stop_cut_it_short(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wiring, "_ROLLUP_EVERY_S", 0.0)
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    reasons = iter(["the database is away", "Code: 394. Query was cancelled"])

    async def end() -> None:
        stop.set()

    def roll_up() -> int:
        reason = next(reasons)
        if "cancelled" in reason:
            asyncio.run_coroutine_threadsafe(end(), loop).result()
        raise SinkUnavailable(reason)

    await wiring.keep_rolling_up(roll_up, stop)
    assert [record.getMessage() for record in caplog.records] == [
        "closed hours are rolled up later: the database is away"
    ]


async def test_whatever_a_roll_up_fails_of_it_is_told_and_made_again(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wiring, "_ROLLUP_EVERY_S", 0.0)
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    errors = iter([SinkRejected("no such column"), ZeroDivisionError("a fault of ours")])

    def roll_up() -> int:
        if error := next(errors, None):
            raise error
        loop.call_soon_threadsafe(stop.set)
        return 1

    await asyncio.wait_for(wiring.keep_rolling_up(roll_up, stop), 60)
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]
    assert [str(record.exc_info[1]) for record in caplog.records if record.exc_info] == [
        "no such column",
        "a fault of ours",
    ]
