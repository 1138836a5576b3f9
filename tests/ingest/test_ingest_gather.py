"""Group commit on an event loop: its timer. What it decides is tested in test_ingest_pending, what senders
see in the contract.
"""

import asyncio
from datetime import timedelta

import pytest

from ingest.gather import Gather
from ingest.settings import IngestSettings
from schemas.errors import LogUnavailable
from schemas.otlp import split
from schemas.topics import SPANS
from tests.support.memory_log import MemoryLog
from tests.support.receiving import traces


async def test_counts_that_wait_for_the_log_do_not_hold_up_what_comes_after_them() -> None:
    errors = [LogUnavailable("away")]
    log = MemoryLog(lambda: errors.pop() if errors else None)
    gather = Gather(
        log, IngestSettings(retry_after=timedelta(hours=1), gather_window=timedelta(milliseconds=20))
    )
    request = traces(1, 5)
    parts = split(SPANS, request, 1)
    assert isinstance(
        await gather.add(SPANS, parts, len(request)), LogUnavailable
    )  # its count is logged in an hour
    async with asyncio.timeout(60):
        assert await gather.add(SPANS, parts, len(request)) is None
    assert len(log.span_ids()) == 5
    gather.hurry()
    await gather.settled()
    await gather.close()
    assert log.counts("refused") == 5


@pytest.mark.parametrize("requests", [1, 3])
async def test_requests_of_one_window_are_one_append(requests: int) -> None:
    log = MemoryLog()
    gather = Gather(log, IngestSettings(gather_window=timedelta(milliseconds=200)))
    request = traces(1, 5)
    parts = split(SPANS, request, 1)
    assert (
        await asyncio.gather(*(gather.add(SPANS, parts, len(request)) for _ in range(requests)))
        == [None] * requests
    )
    assert log.calls == 1
    await gather.close()
