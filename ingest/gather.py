"""Group commit: requests of at most 50 ms become one record per partition, and replies wait for the log."""

import asyncio
import logging
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, NoReturn

from ingest.admission import RequestTooLarge, is_full, never_fits
from ingest.pending import Batch, Outcome, Pending
from ingest.settings import IngestSettings
from schemas import self_metrics
from schemas.errors import LogFull, LogUnavailable
from schemas.otlp import Split
from schemas.records import LogWriter
from schemas.units import NS_PER_S, to_ns

if TYPE_CHECKING:
    from ingest.rust import NativePending

_LOGGER = logging.getLogger(__name__)
_STOPPED = "the receiver stopped before the log took the request"


class Gather:
    """Runs :class:`Pending` (or its native twin) on an event loop in front of ``log``. Not thread-safe: call
    it from that loop.
    """

    def __init__(
        self, log: LogWriter, settings: IngestSettings, waiting: "NativePending | None" = None
    ) -> None:
        self._log = log
        self._limit_bytes = settings.buffer_size
        self._retry_after_s = settings.retry_after.total_seconds()
        self._loop = asyncio.get_running_loop()
        self._window_ns = to_ns(settings.gather_window)
        self._pending: Pending | NativePending = waiting or Pending(
            self._window_ns, settings.record_size, settings.buffer_size, retry_ns=to_ns(settings.retry_after)
        )
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due_ns = 0
        self._appending: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def held_bytes(self) -> int:
        """Bytes held for requests that are not settled."""
        return self._pending.held_bytes

    def reserve(self, size: int) -> bool:
        """Hold ``size`` bytes while a request is being read into parts; False when there is no room. Any
        thread may call it.
        """
        return self._pending.reserve(size)

    def release(self, size: int) -> None:
        """Give back what :meth:`reserve` held."""
        self._pending.release(size)

    def add(self, topic: str, split: Split, request_bytes: int) -> "asyncio.Future[Exception | None]":
        """Gather a request; the future's result is None when the log has it, else the error (the same object
        for many requests).

        Raises LogFull when there is no room now, RequestTooLarge when there never will be, LogUnavailable
        after :meth:`close`.
        """
        if self._closed:
            raise LogUnavailable(_STOPPED)
        future: asyncio.Future[Exception | None] = self._loop.create_future()
        now_ns = time.monotonic_ns()
        try:
            self._pending.add(
                topic,
                split.parts,
                items=split.items,
                rejected=split.rejected,
                repaired=split.repaired,
                request_bytes=request_bytes,
                now_ns=now_ns,
                reply=partial(_answer, future),
            )
        except LogFull:
            self_metrics.REFUSED.labels(topic).inc(split.items + split.rejected)
            raise
        except RequestTooLarge:
            self.reject(topic, split.items + split.rejected)
            raise
        finally:
            self._arm(now_ns)
        return future

    def refuse(self, topic: str, items: int, needed: int) -> NoReturn:
        """Count items of a request that takes ``needed`` bytes and finds no room. Raises LogFull,
        RequestTooLarge where there never will be.
        """
        if needed > self._limit_bytes:
            self.reject(topic, items)
            raise RequestTooLarge(never_fits(needed, self._limit_bytes))
        now_ns = time.monotonic_ns()
        self._pending.refuse(topic, items, now_ns)
        self_metrics.REFUSED.labels(topic).inc(items)
        self._arm(now_ns)
        raise LogFull(is_full(self.held_bytes, self._limit_bytes), self._retry_after_s)

    def reject(self, topic: str, items: int) -> None:
        """Count items of a request that is refused for good: the count goes to the log as a request of its
        own.
        """
        if items:
            with suppress(LogFull, LogUnavailable):  # then it is counted as refused, or nothing is any more
                self.add(topic, Split({}, 0, items, ""), 0)

    def hurry(self) -> None:
        """From now on append what comes at once, without gathering: a stop is under way."""
        if not self._closed:
            self._pending.hurry(time.monotonic_ns())
            self._rearm()

    async def close(self) -> None:
        """Give up what the log has not taken: it is answered as unavailable. Call it when the log had its
        time (:meth:`hurry`).
        """
        self._closed = True
        self._pending.close()
        for task in self._appending:
            task.cancel()
        if self._appending:
            await asyncio.wait(self._appending)
        if self._timer is not None:
            self._timer.cancel()
        now_ns = time.monotonic_ns()
        while (batch := self._pending.take(now_ns)) is not None:
            _publish(self._pending.finish(batch, LogUnavailable(_STOPPED), now_ns))
        if self._pending.refused:
            _LOGGER.warning(
                "stopped while the log was away: it will not know of these refused items: %s",
                dict(self._pending.refused),
            )

    async def settled(self) -> None:
        """Return when nothing is being appended and nothing is due; counts whose append failed had one more
        try by then.
        """
        await self._appended()
        self.hurry()
        await self._appended()

    async def _appended(self) -> None:
        while self._appending:
            await asyncio.wait(self._appending)

    def look(self) -> None:
        """See what is due, and when to look again: something was gathered by other means than :meth:`add`."""
        self._rearm()

    def _rearm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._flush()

    def _arm(self, now_ns: int) -> None:
        """Called for each request, so it asks for nothing that a running timer answers already."""
        if self._pending.has_full:
            self._rearm()
        elif not self._closed and (self._timer is None or self._timer_due_ns > now_ns + self._window_ns):
            due_ns = self._pending.due_ns()
            if due_ns is not None:
                if (
                    self._timer is not None
                ):  # it waits for a log that is away; what came now is tried at its own time
                    self._timer.cancel()
                self._timer_due_ns = due_ns
                self._timer = self._loop.call_later(max(0, due_ns - now_ns) / NS_PER_S, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._flush()

    def _flush(self) -> None:
        if self._closed:
            return
        now_ns = time.monotonic_ns()
        while (batch := self._pending.take(now_ns)) is not None:
            task = self._loop.create_task(self._append(batch))
            self._appending.add(task)
            task.add_done_callback(self._appending.discard)
        self_metrics.GATHER_BYTES.set(self._pending.held_bytes)
        self._arm(now_ns)

    async def _append(self, batch: Batch) -> None:
        began_s = self._loop.time()
        error: Exception | None = LogUnavailable(_STOPPED)
        try:
            await self._log.append(batch.appends)
            error = None
            for append in batch.appends:
                if repaired := append.headers.get("repaired"):
                    self_metrics.REPAIRED.labels(append.tp.topic).inc(repaired)
            self_metrics.APPEND_SECONDS.observe(self._loop.time() - began_s)
        except (LogFull, LogUnavailable) as log_error:
            error = log_error
        except Exception as bug:
            _LOGGER.exception("the log failed in a way that its protocol does not know")
            error = bug
        finally:
            _publish(self._pending.finish(batch, error, time.monotonic_ns()))
        self._rearm()


def _answer(future: "asyncio.Future[Exception | None]", error: Exception | None) -> None:
    if not future.done():  # cancelled when the sender has gone
        future.set_result(error)


def _publish(outcome: Outcome) -> None:
    for counter, counts in (
        (self_metrics.ITEMS, outcome.accepted),
        (self_metrics.REJECTED, outcome.rejected),
        (self_metrics.REFUSED, outcome.refused),
    ):
        for topic, items in counts.items():
            counter.labels(topic).inc(items)
