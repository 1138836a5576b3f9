"""``meshflow repair`` of the store: what is damaged or missing is set aside or made anew, and named."""

import re
import time
from contextlib import closing
from pathlib import Path

from clickhouse_connect.driver.client import Client

from schemas.errors import SinkUnavailable
from storage import damage, embedded
from storage.client import errors, open_client
from storage.migrate import migrate, remake
from storage.settings import ChdbStore, StorageSettings

_MOST_FILES = 200
_ASIDE = "damaged"
"""Folder in the store's."""


def repair_store(settings: StorageSettings) -> list[str]:
    """Make the store usable again, and say what was lost, a line each; [] when nothing was damaged.

    Raises SinkUnavailable: another process has the store, or it cannot be repaired; MigrationError.
    """
    said: list[str] = []
    place = settings.store_place
    with closing(
        _open(place.directory, said) if isinstance(place, ChdbStore) else open_client(place)
    ) as client:
        said += [f"table {name} is made anew, its rows are lost" for name in remake(client, settings)]
        migrate(client, settings)
        if isinstance(place, ChdbStore):
            with errors("read all tables"):
                name, folder = embedded.name_of(place.directory), str(place.directory.resolve())
                said += [line.replace(name, folder) for line in damage.lines(damage.detach_broken(client))]
    return said


def _open(folder: Path, said: list[str]) -> Client:
    """The store; definitions of tables that the engine cannot read are set aside first."""
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    for _ in range(_MOST_FILES):
        try:
            return open_client(ChdbStore(folder))
        except SinkUnavailable as error:
            file = _definition(str(error), folder)
            if file is None:
                raise
            aside = (
                folder / _ASIDE / f"{stamp}-{file.name}"
            )  # the engine wants no other names among definitions
            aside.parent.mkdir(exist_ok=True)
            file.rename(aside)
            said.append(f"{file} was damaged and is now {aside}")
    raise SinkUnavailable(f"more than {_MOST_FILES} files of {folder} are damaged: restore it from a copy")


def _definition(reason: str, folder: Path) -> Path | None:
    """The definition of a table that an error names."""
    for name in re.findall(rf"{re.escape(str(folder))}/[^\s'\"`,;:()]+\.sql", reason):
        if Path(name).is_file():
            return Path(name)
    return None
