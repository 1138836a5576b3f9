"""What the second process of ``up`` may reach, from the settings and from where Python lies."""

import mimetypes
import os
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import meshflow
from meshflow.run.confinement import CHANGE, LIST, OWN, READ, Rules
from meshflow.settings import Settings
from storage.settings import ChdbStore, ClickHouseStore, SqliteLog

_PACKAGES = ("console", "ingest", "log", "meshflow", "processors", "schemas", "storage")
_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache")
_SYSTEM = (
    "/proc/self",
    *("/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/uptime", "/proc/loadavg", "/proc/vmstat"),
    *("/proc/sys/vm", "/proc/sys/kernel", "/sys/fs/cgroup", "/sys/devices/system", "/sys/kernel/mm"),
    *("/dev/zero", "/dev/random", "/dev/urandom", "/etc/localtime", "/etc/timezone", "/usr/share/zoneinfo"),
)
_NETWORK = ("/etc", "/run/systemd/resolve", "/usr/share/ca-certificates", "/usr/local/share/ca-certificates")
"""Names of hosts and certificates; nobody's SQL runs in this process where the tables are on a server."""


def bounds(settings: Settings, temporary: Path) -> Rules:
    """All that processing, engine and SQL need, with the log's files, which are opened first of all.

    New files come to be in the store's folder and in ``temporary`` alone.
    """
    storage = settings.storage
    paths = {Path(entry).absolute(): LIST for entry in sys.path if entry}  # Python looks for modules in them
    paths |= dict.fromkeys(_readable(), READ)
    paths[Path("/dev/null")] = CHANGE
    paths[temporary] = OWN
    if isinstance(storage.log_place, SqliteLog):
        paths[storage.log_place.directory.absolute()] = CHANGE
    return _with_store(settings, paths)


def bounds_with_log_open(settings: Settings, temporary: Path) -> Rules:
    """The same once the log is open: no statement of SQL can read or change its files by their names."""
    rules = bounds(settings, temporary)
    place = settings.storage.log_place
    closed = place.directory.absolute() if isinstance(place, SqliteLog) else None
    return Rules(
        {path: rights for path, rights in rules.paths.items() if path != closed}, rules.connect_ports
    )


def _with_store(settings: Settings, paths: dict[Path, int]) -> Rules:
    place = settings.storage.store_place
    if isinstance(place, ChdbStore):
        paths[place.directory.absolute()] = OWN
        return Rules(paths)
    assert isinstance(place, ClickHouseStore)
    for path in (*_NETWORK, *filter(None, _certificates(place))):
        paths[Path(path)] = READ
    return Rules(paths, (place.port,))


def _certificates(place: ClickHouseStore) -> tuple[str, str, str]:
    return place.options.ca_file, place.options.certificate_file, place.options.key_file


def _readable() -> Iterator[Path]:
    """Python, meshflow, and what they load."""
    installed = {Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    yield from installed
    yield from (Path(prefix) / "lib" for prefix in {sys.prefix, sys.base_prefix})
    yield from map(Path, (*_LIBRARIES, *_SYSTEM, *mimetypes.knownfiles))
    yield from map(Path, filter(None, os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)))
    root = Path(meshflow.__file__).parents[1]
    yield from (root / package for package in _PACKAGES)
