"""Which process has which spool: numbered folders in one place, each locked by the process that uses it.

Whoever starts takes the first one that is free. What a dead process left in another one is adopted by a
living one.
"""

import json
import logging
from dataclasses import dataclass
from pathlib import Path

from log.spool.spool import SUFFIX, Spool, SpoolLocked
from schemas.errors import LogUnavailable

_LOGGER = logging.getLogger(__name__)

_MOST = 1000


@dataclass(frozen=True, slots=True)
class Target:
    """The log that a spool's entries are for."""

    servers: tuple[str, ...]
    prefix: str

    def same_as(self, other: "Target") -> bool:
        """Whether they may be one: brokers come and go, so one in common is enough."""
        return self.prefix == other.prefix and not set(self.servers).isdisjoint(other.servers)


def claim(root: Path, target: Target, max_bytes: int) -> Spool:
    """The first spool in ``root`` that no process uses, and that holds nothing for another log. Raises
    LogUnavailable.
    """
    for number in range(_MOST):
        try:
            spool = Spool(root / str(number), max_bytes)
        except SpoolLocked:
            continue
        if _is_for(spool, target):
            return spool
        _LOGGER.error(
            "%s holds records for another log: %s; start `meshflow ingest` with that one",
            spool.folder,
            _read(spool.folder),
        )
        spool.close()
    raise LogUnavailable(f"all {_MOST} spools in {root} are in use")


def adopt(root: Path, target: Target, max_bytes: int) -> Spool | None:
    """A spool that holds something and has no process; None when there is none. Raises LogUnavailable."""
    for folder in sorted(root.iterdir()):
        known = _read(folder)
        if known is None or not known.same_as(target) or not any(folder.glob(f"*{SUFFIX}")):
            continue
        try:
            spool = Spool(folder, max_bytes)
        except SpoolLocked:
            continue
        if spool.entries and _is_for(spool, target):
            return spool
        spool.close()
    return None


def _is_for(spool: Spool, target: Target) -> bool:
    """Whether a spool is for this log; an empty one becomes so."""
    if spool.entries:
        known = _read(spool.folder)
        return known is None or known.same_as(target)
    if _read(spool.folder) != target:  # a disk may be full, and it need not be written
        try:
            (spool.folder / "target").write_text(
                json.dumps({"servers": target.servers, "prefix": target.prefix})
            )
        except OSError as error:
            raise LogUnavailable(f"the spool in {spool.folder} cannot be used: {error}") from error
    return True


def _read(folder: Path) -> Target | None:
    try:
        fields = json.loads((folder / "target").read_text())
        return Target(tuple(fields["servers"]), fields["prefix"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
