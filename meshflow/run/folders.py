"""The data folder: nobody else's to read, and the one place for temporary files."""

import fcntl
import logging
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from meshflow.settings import Settings
from schemas.errors import LogUnavailable
from storage.settings import ChdbStore, SqliteLog, without_password

logger = logging.getLogger(__name__)

_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_TEMPORARY = "tmp"
_LOCK = "up.lock"


def log_folder(settings: Settings) -> Path:
    """Where ``up`` has its log. Raises LogUnavailable where the settings name another kind of log."""
    place = settings.storage.log_place
    if not isinstance(place, SqliteLog):
        raise LogUnavailable(
            f"`up` keeps its log in SQLite; storage.log = {without_password(settings.storage.log)!r} is for the"
            " distributed mode"
        )
    return place.directory


def keep_private(*folders: Path) -> None:
    """Make folders where they are missing, for this user alone (0700), and all files of this process from
    now on too (umask 077). A folder that others may enter is narrowed where it is this user's, else only
    reported.
    """
    os.umask(_OTHERS)
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        status = folder.stat()
        wide = stat.S_IMODE(status.st_mode) & _OTHERS
        if not wide:
            continue
        mode = f"{stat.S_IMODE(status.st_mode):04o}"
        if status.st_uid == os.geteuid():
            folder.chmod(0o700)
            logger.warning("%s was open to other local users (%s) and is 0700 now", folder, mode)
        else:
            logger.warning(
                "%s belongs to another user and is open to others (%s): give it to the user that runs meshflow,"
                " with mode 0700",
                folder,
                mode,
            )


def temporary_folder(data: Path) -> Path:
    """An empty folder in the data folder for TMPDIR: a killed process leaves rows there, which this call
    removes.

    Call it where no other process works on the data folder.
    """
    folder = (data / _TEMPORARY).absolute()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, mode=0o700, exist_ok=True)
    return folder


def use_temporary_folder(settings: Settings) -> None:
    """Make :func:`temporary_folder` the one of this process, which has the store's lock, if that is a
    folder.
    """
    if not isinstance(settings.storage.store_place, ChdbStore):
        return
    folder = str(temporary_folder(settings.storage.data))
    os.environ["TMPDIR"] = folder
    tempfile.tempdir = folder


def keep_store_private(settings: Settings) -> None:
    """:func:`keep_private` for a process that has no log folder; with the store's folder where it has one."""
    place = settings.storage.store_place
    keep_private(*((settings.storage.data, place.directory) if isinstance(place, ChdbStore) else ()))


@contextmanager
def claimed(data: Path, within_s: float = 10.0) -> Iterator[int]:
    """The data folder's lock, a file descriptor that child processes may inherit: it is free when all that
    have it are gone.

    After a kill -9 of ``up`` its child needs a moment to end: it is waited for. Raises LogUnavailable after
    ``within_s`` seconds.
    """
    path = data / _LOCK
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        end_s = time.monotonic() + within_s
        while not _try_lock(lock):
            if time.monotonic() > end_s:
                raise LogUnavailable(f"{path} is still held by a process of an earlier `up`; end it first")
            time.sleep(0.02)
        yield lock
    finally:
        os.close(lock)


def _try_lock(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
