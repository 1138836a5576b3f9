"""What the embedded and the distributed mode are put together from alike."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress

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
from storage.settings import ClickHouseStore

logger = logging.getLogger(__name__)

_ROLLUP_EVERY_S = 60.0


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


async def keep_rolling_up(roll_up: Callable[[], int], stop: asyncio.Event) -> None:
    """Make closed hours into coarser rows, from time to time; one that a stop cuts short is made after the
    next start.

    An error, whatever it is, is told and all of it done again: ending would stop roll-ups without a word, or,
    by ending the process, what does not need them. Finer rows stay until they are rolled up, so nothing is
    lost meanwhile.
    """
    while not stop.is_set():
        try:
            await asyncio.to_thread(roll_up)
        except SinkUnavailable as error:
            if not stop.is_set():
                logger.warning("closed hours are rolled up later: %s", error)
        except Exception:
            logger.exception("closed hours could not be rolled up, which is tried again")
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), _ROLLUP_EVERY_S)


def tell_retry(error: Exception, delay_s: float) -> None:
    """For RetryingSink."""
    logger.warning("the database is away, reading waits %.1f s: %s", delay_s, error)


def make_processor(settings: Settings, tp: TopicPartition, commit: Commit | None) -> Processor:
    """The processor of a partition, by its topic."""
    if tp.topic == METRICS:
        return point_processor(tp, settings.processing, commit)
    if tp.topic == LOGS:
        return log_processor(tp, settings.processing, commit)
    return span_processor(tp, settings.processing, settings.sampling, commit)
