"""When jobs run: each in a thread of its own, as soon as the watermark makes it due."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from schemas import self_metrics
from schemas.errors import MeshflowError, SinkUnavailable
from schemas.watermark import UNKNOWN, Watermark
from storage.jobs.job import Job

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 10.0
"""How often the watermark is looked at."""
TRY_AGAIN_S = 60.0
"""How long a job that failed waits."""


async def keep_running(
    jobs: Sequence[Job],
    watermark: Callable[[], Awaitable[Watermark]],
    stop: asyncio.Event,
    *,
    look_every_s: float = LOOK_EVERY_S,
    try_again_s: float = TRY_AGAIN_S,
) -> None:
    """Run ``jobs`` until ``stop``; return when the portions in hand are done.

    ``watermark`` answers UNKNOWN on a worker that is not the one to run jobs. A job does not wait for
    another one, and never runs twice at once here. Whatever a job raises is logged and counted, and the job
    runs again: ending would stop jobs without a word, or, by ending the process, processing, which does not
    need them.
    """
    running: dict[str, asyncio.Task[None]] = {}
    try:
        while not stop.is_set():
            known = await _known(watermark)
            for job in jobs:
                if job.name not in running or running[job.name].done():
                    turn = _turn(job, known, stop, try_again_s)
                    running[job.name] = asyncio.create_task(turn, name=job.name)
            await _pause(stop, look_every_s)
    finally:
        await asyncio.gather(*running.values())


async def _known(watermark: Callable[[], Awaitable[Watermark]]) -> Watermark:
    try:
        return await watermark()
    except Exception:
        logger.exception("how far processing is could not be found out, which is tried again")
        return UNKNOWN


async def _turn(job: Job, watermark: Watermark, stop: asyncio.Event, try_again_s: float) -> None:
    """Run a job if it is due; a job that failed pauses before its turn ends."""
    try:
        if job.due(watermark):
            await asyncio.to_thread(_run, job, watermark, stop)
    except Exception as error:
        if isinstance(error, SinkUnavailable) and stop.is_set():
            return  # cut short by the stop, and done after the next start
        self_metrics.JOB_FAILURES.labels(job.name).inc()
        if isinstance(error, SinkUnavailable):
            logger.warning("%s: done later, as the database is away: %s", job.name, error)
        elif isinstance(error, MeshflowError):
            logger.error("%s: failed, and is tried again in %.0f s: %s", job.name, try_again_s, error)
        else:
            logger.exception("%s: failed, and is tried again in %.0f s", job.name, try_again_s)
        await _pause(stop, try_again_s)


def _run(job: Job, watermark: Watermark, stop: asyncio.Event) -> None:
    portions = self_metrics.JOB_PORTIONS.labels(job.name)
    for portion in job.run(watermark):
        portions.inc()
        logger.debug("%s: %s is done", job.name, portion)
        if stop.is_set():
            return


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)
