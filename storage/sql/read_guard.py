"""What read-only SQL may do: decided from the statement as the engine itself parses it.

``readonly = 1`` keeps an engine from writing, and from table functions that reach outside, but lets a few
things through: the scalar function ``file``, INTO OUTFILE, KILL, schema inference (``DESCRIBE url(...)``).
These are refused here. The other way round, it forbids every SETTINGS clause; a statement that provably stays
inside gets ``readonly = 2``, which allows them. Settings that bound a query's cost are refused either way
(the engine lets them pass in subqueries).

The statement arrives formatted by the engine (``formatQuerySingleLine``: one statement, no comments, one
spelling), with its syntax tree (``EXPLAIN AST``), so no SQL is parsed here.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from schemas.errors import QueryFailed

ACCESS_DENIED = 497
READONLY = 164

STATEMENTS = frozenset(
    {
        "SelectWithUnionQuery",
        "SelectIntersectExceptQuery",
        "SelectQuery",
        "Explain",
        "DescribeQuery",
        "ExistsTableQuery",
        "ExistsDatabaseQuery",
        "ExistsViewQuery",
        "ShowTables",
        "ShowColumns",
        "ShowIndexes",
        "ShowFunctions",
        "ShowSetting",
        "ShowEngineQuery",
        "ShowProcesslistQuery",
        "ShowCreateTableQuery",
        "ShowCreateViewQuery",
        "ShowCreateDatabaseQuery",
    }
)
"""Roots of syntax trees that only read."""

TABLE_FUNCTIONS = frozenset(
    {
        "generateSeries",
        "generate_series",
        "merge",
        "null",
        "numbers",
        "numbers_mt",
        "values",
        "view",
        "viewExplain",
        "zeros",
        "zeros_mt",
    }
)
"""Table functions that stay inside the database."""

FUNCTIONS_REFUSED = re.compile(
    r"\b(file|catboostEvaluate|hasColumnInTable|reverseDNSQuery|ai[A-Z]\w*|AI[A-Z]\w*)\b"
)
"""Scalar functions that read files or open connections, wherever the name stands: a function can be handed on
by name (``arrayMap(file, ...)``, ``APPLY(file)``)."""

GUARDED_SETTINGS = re.compile(
    r"readonly|profile|role|dialect|priority|workload|use_concurrency_control|timeout_overflow_mode|max_execution_time\w*|max_memory_usage\w*"
    r"|max_threads|max_result_bytes|max_temporary_data\w*|max_bytes_before_\w+|max_bytes_ratio_before_\w+|memory_overcommit\w*|\w*format_schema\w*"
    r"|\w*user_files\w*|allow_introspection_functions|allow_experimental_\w+_dialect|\w*parallel_replicas\w*|implicit_\w+"
)
"""Settings that bound a query's cost, say how SQL is read, or name files: not for the one who asks."""

_GUARDED_IN_CLAUSE = re.compile(rf"\bSETTINGS .*?\b({GUARDED_SETTINGS.pattern}) =")
_LITERAL = re.compile(r"'(?:[^'\\]|\\.|'')*'", re.DOTALL)
_QUOTED_NAME = re.compile(r"`((?:[^`\\]|\\.|``)*)`|\"((?:[^\"\\]|\\.|\"\")*)\"", re.DOTALL)
_NODE = re.compile(r"( *)(\w+)(?: +(.*?))?(?: \(alias .*?\))?(?: \(children \d+\))?$", re.DOTALL)
_PLAIN_TABLE = re.compile(r"(\w+\.)?\w+")
_INSERT_END = re.compile(r"(?: SETTINGS \w+ = .*)? FORMAT \w+$")
_FORMAT = re.compile(r"\bFORMAT (\w+)(?: SETTINGS .*)?$")


class Node(NamedTuple):
    """A line of EXPLAIN AST: how deep it stands, what it is, and its name."""

    depth: int
    kind: str
    name: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """A statement that may run."""

    format: str | None
    """Its own FORMAT, if it has one."""
    readonly: int
    """Level of the engine's ``readonly`` setting to run it at: 2 allows settings, 1 does not, 0 writes."""


def bare(sql: str) -> str:
    """The formatted statement without what is quoted: literals become ``''``, quoted names lose their quotes
    when they are plain words.
    """
    without_literals = _LITERAL.sub("''", sql)
    return _QUOTED_NAME.sub(
        lambda match: name if (name := match[1] or match[2] or "").isidentifier() else "``", without_literals
    )


def without_format(sql: str) -> str:
    """The formatted statement without its own FORMAT clause (and the settings that may follow it)."""
    own_format = re.search(r" FORMAT \w+(?: SETTINGS (?:\w+ = (?:'(?:[^'\\]|\\.)*'|[^ ']+),? ?)+)?$", sql)
    return sql[: own_format.start()] if own_format else sql


def with_infile(sql: str, path: str) -> str:
    """A formatted ``INSERT ... FORMAT x`` whose rows come from a file; ``path`` is quoted already."""
    masked = _QUOTED_NAME.sub(_mask, _LITERAL.sub(_mask, sql))
    clauses = _INSERT_END.search(masked)
    if clauses is None:
        raise denied("an INSERT of rows needs a FORMAT")
    return f"{sql[: clauses.start()]} FROM INFILE {path} COMPRESSION 'none'{sql[clauses.start() :]}"


def _mask(match: re.Match[str]) -> str:
    return "_" * len(match[0])


def check(sql: str, tree: str) -> Verdict:
    """Decide on a formatted statement ``sql`` with its syntax tree (the text of EXPLAIN AST).

    Raises QueryFailed (ACCESS_DENIED) for a statement that is not read-only or reaches outside.
    """
    words = bare(sql)
    names = nodes(tree)
    if not reads(names):
        raise denied(f"{sql.split(' ', 1)[0]} is not allowed here: this port only reads")
    if guarded := _GUARDED_IN_CLAUSE.search(words):
        raise QueryFailed(
            READONLY,
            f"Code: {READONLY}. DB::Exception: Cannot modify '{guarded[1]}' setting in readonly mode. (READONLY)",
        )
    refuse_outside(names, words)
    inside = names[0].kind == "SelectWithUnionQuery" and plain_tables(names) and "merge(" not in words
    return Verdict(own_format(words), 2 if inside else 1)


def nodes(tree: str) -> list[Node]:
    """The nodes of EXPLAIN AST's text, parents first."""
    matches = [_NODE.match(line) for line in tree.splitlines() if line.strip()]
    return [Node(len(match[1]), match[2], match[3] or "") for match in matches if match]


def reads(names: Sequence[Node]) -> bool:
    """Whether a statement is one of those that only read."""
    return (
        bool(names)
        and names[0].kind in STATEMENTS
        and not (names[0].kind == "Explain" and "TABLE OVERRIDE" in names[0].name)
    )


def refuse_outside(names: Sequence[Node], words: str) -> None:
    """Raise QueryFailed (ACCESS_DENIED) for files, functions and table functions that reach outside the
    database.
    """
    if re.search(r"\bINTO OUTFILE\b", words):
        raise denied("INTO OUTFILE is not allowed here: the answer comes back over HTTP")
    if refused := FUNCTIONS_REFUSED.search(words):
        raise denied(f"function {refused[1]} is not allowed here: it reaches outside the database")
    sources = [
        node.name.split(" ")[0]
        for above, node in pairwise(names)
        if above.kind == "TableExpression" and node.kind == "Function"
    ]
    if foreign := [name for name in sources if name not in TABLE_FUNCTIONS]:
        raise denied(f"table function {foreign[0]} is not allowed here: it reaches outside the database")


def plain_tables(names: Sequence[Node]) -> bool:
    """Whether all tables that are read have plain names: a quoted name could be a file's."""
    return all(_PLAIN_TABLE.fullmatch(node.name) for node in names if node.kind == "TableIdentifier")


def own_format(words: str) -> str | None:
    """The FORMAT that a bare statement ends with."""
    clause = _FORMAT.search(words)
    return clause[1] if clause else None


def denied(reason: str) -> QueryFailed:
    """ACCESS_DENIED, as ClickHouse would say it."""
    return QueryFailed(ACCESS_DENIED, f"Code: {ACCESS_DENIED}. DB::Exception: {reason}. (ACCESS_DENIED)")
