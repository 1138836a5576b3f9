"""Read-only SQL: what a query is, what it may cost, what comes back, and who answers it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Limits:
    """What one query may cost."""

    time_s: float
    memory_bytes: int
    threads: int
    result_bytes: int


@dataclass(frozen=True, slots=True)
class Query:
    """One read-only statement as it came in."""

    sql: str
    default_format: str = "TabSeparated"
    """The format of the answer when the statement has no FORMAT clause."""
    database: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)
    """Values of ``{name:Type}``, written as ClickHouse's HTTP interface takes them (``param_name=``: TSV-escaped)."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """ClickHouse settings of this query alone; the limits are stronger."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a query gave."""

    body: bytes
    format: str
    """What ``body`` is written in: the statement's own FORMAT, else the default."""
    rows_read: int
    bytes_read: int


class Engine(Protocol):
    """Answers read-only SQL. May be called from several threads at once; a call returns when the answer is there."""

    def execute(self, query: Query, limits: Limits) -> Answer:
        """Run one statement that changes nothing and reaches nothing outside the database's own tables.

        Raises schemas.errors.QueryFailed with ClickHouse's code and text.
        """

    def interrupt(self) -> None:
        """End the statements that run; their ``execute`` raises QueryFailed."""

    def close(self) -> None:
        """Let go of the database."""
