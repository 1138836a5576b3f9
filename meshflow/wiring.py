"""What the embedded and the distributed mode are put together from alike."""

import logging

from meshflow.settings import Settings
from processors.logs.signal import log_processor
from processors.points.signal import point_processor
from processors.readers.partition import Processor
from processors.spans.signal import span_processor
from schemas.records import Commit, TopicPartition
from schemas.topics import LOGS, METRICS
from storage import migrate as storage_migrate
from storage.client import open_client
from storage.jobs.job import Job
from storage.jobs.rollups import RollUps
from storage.settings import ClickHouseStore

logger = logging.getLogger(__name__)


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


def open_jobs(settings: Settings) -> tuple[Job, ...]:
    """What runs behind the watermark; each job has a client of its own. Raises SinkUnavailable."""
    return (RollUps(open_client(settings.storage.store_place), settings.storage),)


def log_retry(error: Exception, delay_s: float) -> None:
    """For RetryingSink."""
    logger.warning("the database is away, reading waits %.1f s: %s", delay_s, error)


def make_processor(settings: Settings, tp: TopicPartition, commit: Commit | None) -> Processor:
    """The processor of a partition, by its topic."""
    if tp.topic == METRICS:
        return point_processor(tp, settings.processing, commit)
    if tp.topic == LOGS:
        return log_processor(tp, settings.processing, commit)
    return span_processor(tp, settings.processing, settings.sampling, commit)
