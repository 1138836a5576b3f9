"""``meshflow repair``: save what can be read of the embedded log, as a start does where it finds damage."""

import os

from log.sqlite import schema as sqlite_format
from log.sqlite.salvage import Salvaged, salvage
from meshflow.settings import Settings
from schemas.errors import LogUnavailable
from storage.settings import SqliteLog


def repair(settings: Settings) -> Salvaged:
    """Copy all readable records into a new file and set the old one aside.

    Raises LogInUse while `up` runs, LogUnavailable: there is no such log, or no room.
    """
    place = settings.storage.log_place
    if not isinstance(place, SqliteLog) or not (place.directory / sqlite_format.FILE).exists():
        raise LogUnavailable("there is no embedded log to repair; say --data or MESHFLOW_LOG")
    lock = sqlite_format.lock(place.directory)
    try:
        return salvage(place.directory, settings.storage.log_topics())
    finally:
        os.close(lock)
