"""The scheduler: jobs run when they are due, one that fails runs again, and a stop waits for one portion."""

import asyncio
import threading
from collections.abc import Callable, Iterator

import pytest

from schemas.errors import SinkRejected, SinkUnavailable
from schemas.watermark import UNKNOWN, Watermark
from storage.jobs.schedule import keep_running

LONG_S = 60.0


class Counting:
    """Has a portion for each ns of the watermark; ``before`` is called before each, in the job's thread."""

    def __init__(self, name: str, before: Callable[[int], None] = lambda _: None) -> None:
        self.name = name
        self.done = 0
        self.runs = 0
        self.at_once = 0
        self._before = before

    def due(self, watermark: Watermark) -> bool:
        return self.done < watermark.stored_until_ns

    def run(self, watermark: Watermark) -> Iterator[str]:
        self.runs += 1
        self.at_once += 1
        assert self.at_once == 1
        try:
            while self.done < watermark.stored_until_ns:
                self._before(self.done)
                self.done += 1
                yield str(self.done)
        finally:
            self.at_once -= 1

    def close(self) -> None:
        """Nothing is open."""


class Scheduled:
    """A scheduler of some jobs whose watermark a test moves."""

    def __init__(self, *jobs: Counting) -> None:
        self.watermark_ns = 0
        self.looked = 0
        self.error: Exception | None = None
        self._stop = asyncio.Event()
        self._running = asyncio.create_task(
            keep_running(jobs, self._watermark, self._stop, look_every_s=0.001, try_again_s=0.001)
        )

    async def _watermark(self) -> Watermark:
        self.looked += 1
        if self.error:
            error, self.error = self.error, None
            raise error
        return Watermark(self.watermark_ns, 0) if self.watermark_ns else UNKNOWN

    async def until(self, happened: Callable[[], bool]) -> None:
        async with asyncio.timeout(LONG_S):
            while not happened():
                assert not self._running.done()
                await asyncio.sleep(0.001)

    async def looks(self, times: int) -> None:
        wanted = self.looked + times
        await self.until(lambda: self.looked >= wanted)

    def stop(self) -> None:
        self._stop.set()

    async def end(self) -> None:
        self.stop()
        await asyncio.wait_for(self._running, LONG_S)


async def test_jobs_run_only_when_the_watermark_moves() -> None:
    jobs = Counting("a"), Counting("b")
    scheduled = Scheduled(*jobs)
    await scheduled.looks(3)
    assert [job.runs for job in jobs] == [0, 0]
    scheduled.watermark_ns = 5
    await scheduled.until(lambda: all(job.done == 5 for job in jobs))
    await scheduled.looks(3)
    assert [job.runs for job in jobs] == [1, 1]
    scheduled.watermark_ns = 3
    await scheduled.looks(3)
    scheduled.watermark_ns = 900
    await scheduled.until(lambda: all(job.done == 900 for job in jobs))
    assert [job.runs for job in jobs] == [2, 2]
    await scheduled.end()


async def test_a_job_waits_for_no_other_and_never_runs_twice_at_once() -> None:
    go_on = threading.Event()
    slow, quick = Counting("slow", lambda _: assert_set(go_on)), Counting("quick")
    scheduled = Scheduled(slow, quick)
    scheduled.watermark_ns = 2
    await scheduled.until(lambda: quick.done == 2)
    scheduled.watermark_ns = 4
    await scheduled.until(lambda: quick.done == 4)
    await scheduled.looks(3)
    assert (slow.done, slow.runs) == (0, 1)
    go_on.set()
    await scheduled.until(lambda: slow.done == 4)
    await scheduled.end()


def assert_set(event: threading.Event) -> None:
    assert event.wait(LONG_S)


async def test_whatever_a_job_fails_of_is_logged_and_the_job_runs_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    errors = iter(
        [SinkUnavailable("connection refused"), SinkRejected("no such column"), ZeroDivisionError("ours")]
    )

    def fail(_: int) -> None:
        if error := next(errors, None):
            raise error

    failing, other = Counting("failing", fail), Counting("other")
    scheduled = Scheduled(failing, other)
    scheduled.watermark_ns = 3
    await scheduled.until(lambda: failing.done == 3 and other.done == 3)
    await scheduled.end()
    assert [record.levelname for record in caplog.records] == ["WARNING", "ERROR", "ERROR"]
    assert "connection refused" in caplog.records[0].getMessage()
    assert all("failing" in record.getMessage() for record in caplog.records)


async def test_a_watermark_that_cannot_be_found_out_is_asked_for_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    job = Counting("job")
    scheduled = Scheduled(job)
    scheduled.watermark_ns, scheduled.error = 2, RuntimeError("a fault of ours")
    await scheduled.until(lambda: job.done == 2)
    await scheduled.end()
    assert [record.levelname for record in caplog.records] == ["ERROR"]


async def test_a_stop_waits_for_the_portion_in_hand_and_for_no_other() -> None:
    begun, go_on = threading.Event(), threading.Event()

    def wait(number: int) -> None:
        if number == 2:
            begun.set()
            assert_set(go_on)

    job = Counting("job", wait)
    scheduled = Scheduled(job)
    scheduled.watermark_ns = 1_000_000
    await scheduled.until(begun.is_set)
    scheduled.stop()
    go_on.set()
    await scheduled.end()
    assert job.done == 3


async def test_what_a_stop_cuts_short_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def cut(_: int) -> None:
        begun.set()
        assert_set(go_on)
        raise SinkUnavailable("Code: 394. Query was cancelled")

    scheduled = Scheduled(Counting("job", cut))
    scheduled.watermark_ns = 1
    await scheduled.until(begun.is_set)
    scheduled.stop()
    go_on.set()
    await scheduled.end()
    assert not caplog.records
