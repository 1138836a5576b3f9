"""What the embedded and the distributed mode are put together from alike."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from meshflow.settings import Settings
from processors.logs.signal import log_processor
from processors.points.signal import point_processor
from processors.readers.partition import Processor
from processors.spans.signal import span_processor
from schemas.errors import SinkUnavailable
from schemas.records import Commit, TopicPartition
from schemas.topics import LOGS, METRICS
from storage import migrate as storage_migrate
from storage.client import open_client
from storage.jobs.job import Job
from storage.jobs.rollups import RollUps
from storage.settings import ChdbStore, ClickHouseStore

logger = logging.getLogger(__name__)

_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 10.0

_T = TypeVar("_T")


def migrate(settings: Settings) -> list[str]:
    """Bring the store's tables up to date; what was done. Raises SinkUnavailable, MigrationError."""
    place = settings.storage.store_place
    if isinstance(place, ClickHouseStore):
        storage_migrate.create_database(place)
    client = open_client(place)
    try:
        return storage_migrate.migrate(client, settings.storage)
    finally:
        client.close()


async def once_there(
    open_store: Callable[[], _T], place: ChdbStore | ClickHouseStore, stop: asyncio.Event
) -> _T | None:
    """What ``open_store`` gives once the server answers, None where ``stop`` comes first: a start waits for a
    server as a running process does.

    Raises what ``open_store`` raises but for a server that is away; a folder has no server to wait for.
    """
    delay_s = _FIRST_WAIT_S
    while not stop.is_set():
        try:
            return await asyncio.to_thread(open_store)
        except SinkUnavailable as error:
            if not isinstance(place, ClickHouseStore):
                raise
            logger.warning("the database is not there yet, the start waits for it: %s", error)
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), delay_s)
        delay_s = min(2 * delay_s, _LONGEST_WAIT_S)
    return None


def open_jobs(settings: Settings) -> tuple[Job, ...]:
    """What runs behind the watermark; each job has a client of its own. Raises SinkUnavailable."""
    return (RollUps(open_client(settings.storage.store_place), settings.storage),)


def log_retry(error: Exception, delay_s: float) -> None:
    """For RetryingSink."""
    logger.warning("the database is away, reading waits %.1f s: %s", delay_s, error)


def make_processor(settings: Settings, tp: TopicPartition, commit: Commit | None) -> Processor:
    """The processor of a partition, by its topic."""
    rules = settings.storage.redact.rules
    if tp.topic == METRICS:
        return point_processor(tp, settings.processing, commit, rules)
    if tp.topic == LOGS:
        return log_processor(tp, settings.processing, commit, rules)
    return span_processor(tp, settings.processing, settings.sampling, commit, rules)
