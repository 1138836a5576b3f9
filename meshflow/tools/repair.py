"""``meshflow repair``: save what can be read of the embedded log, its dead letters and the store."""

import os

from log.sqlite import schema as sqlite_format
from log.sqlite.letters_salvage import save_letters
from log.sqlite.salvage import salvage
from meshflow.settings import Settings
from schemas.errors import LogUnavailable
from storage.settings import ChdbStore, SqliteLog


def repair(settings: Settings) -> list[str]:
    """Copy all readable records into a new log and set the old one aside; do the same for damaged files
    beside it; a line for each.

    Raises LogInUse while `up` runs, LogUnavailable: there is no such log, or no room. Raises SinkUnavailable,
    MigrationError: the store cannot be repaired.
    """
    place = settings.storage.log_place
    if not isinstance(place, SqliteLog) or not (place.directory / sqlite_format.FILE).exists():
        raise LogUnavailable("there is no embedded log to repair; say --data or MESHFLOW_LOG")
    lock = sqlite_format.lock(place.directory)
    try:
        saved = salvage(place.directory, settings.storage.log_topics())
        said = [f"{saved.records} records are saved, {saved.lost} are lost; the old file is {saved.aside}"]
        if letters := save_letters(place.directory):
            said.append(
                f"{letters.letters} dead letters are saved, {letters.lost} or more are lost; the old file is {letters.aside}"
            )
        return [*said, *_repair_store(settings)]
    finally:
        os.close(lock)


def _repair_store(settings: Settings) -> list[str]:
    place = settings.storage.store_place
    if isinstance(place, ChdbStore) and not place.directory.is_dir():
        return []
    from storage.repair import repair_store  # noqa: PLC0415 - brings chdb

    return repair_store(settings.storage) or ["the store is whole"]
