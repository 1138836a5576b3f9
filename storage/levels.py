"""Tables at several levels (10 s, 1 min, 1 h): one template in a migration, a statement for each level."""

from typing import NamedTuple

_BETWEEN = "\n\n"


class Level(NamedTuple):
    """What differs between the tables of one family."""

    name: str
    partition: str
    """Expression of ``slot``: what one partition of the table holds."""
    range: str
    """Expression of ``slot``: first column of the sorting key; a roll-up reads one of these."""


LEVELS = (
    Level("10s", "toDate(slot)", "toStartOfHour(slot)"),
    Level("1m", "toDate(slot)", "toStartOfHour(slot)"),
    Level("1h", "toYYYYMM(slot)", "toDate(slot)"),
)
"""Finest first."""

FAMILIES = ("red", "edges", "traffic", "upstreams", "proxies", "control_plane")
"""Families of tables that have each level: ``red_10s``, ``red_1m``, ..."""


def tables(level: str) -> tuple[str, ...]:
    """The tables of one level."""
    return tuple(f"{family}_{level}" for family in FAMILIES)


def at_each_level(text: str) -> str:
    """A migration with each statement that names ``${level}`` written once for every level.

    Statements are apart by an empty line. The text that results is the text which the checksum of a
    migration is made of.
    """
    parts = text.split(_BETWEEN)
    return _BETWEEN.join(
        filled for part in parts for filled in (_filled(part) if "${level}" in part else [part])
    )


def _filled(statement: str) -> list[str]:
    return [
        statement.replace("${level}", level.name)
        .replace("${level_partition}", level.partition)
        .replace("${level_range}", level.range)
        for level in LEVELS
    ]
