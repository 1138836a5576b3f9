"""SQL: what a query is, what it may cost, what comes back, and who answers it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Limits:
    """What one query may cost."""

    time_s: float
    memory_bytes: int
    threads: int
    result_bytes: int


@dataclass(frozen=True, slots=True)
class Session:
    """A session that a query asks to run in: settings made by SET, and temporary tables, last as long as
    it.
    """

    name: str
    timeout_s: float
    """How long it lasts without a query."""
    must_exist: bool


@dataclass(frozen=True, slots=True)
class Query:
    """One statement as it came in."""

    sql: str
    default_format: str = "TabSeparated"
    """The format of the answer when the statement has no FORMAT clause."""
    database: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)
    """Values of ``{name:Type}``, written as ClickHouse's HTTP interface takes them (``param_name=``:
    TSV-escaped).
    """
    settings: Mapping[str, str] = field(default_factory=dict)
    """ClickHouse settings of this query alone; the limits are stronger."""
    data: Path | None = None
    """A file with the rows of an INSERT, in the format that the statement names."""
    session: Session | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What a query gave."""

    body: bytes
    format: str
    """What ``body`` is written in: the statement's own FORMAT, else the default."""
    rows_read: int
    bytes_read: int
    rows_written: int = 0
    bytes_written: int = 0


class Engine(Protocol):
    """Answers SQL. May be called from several threads at once; a call returns when the answer is there, a
    write when it is stored.
    """

    def execute(self, query: Query, limits: Limits) -> Answer:
        """Run one statement that reaches nothing outside the database's own tables, and changes nothing
        unless the engine was opened to be written to.

        Raises schemas.errors.QueryFailed with ClickHouse's code and text.
        """

    def interrupt(self) -> None:
        """End the statements that run and only read; their ``execute`` raises QueryFailed."""

    def close(self) -> None:
        """Let go of the database."""
