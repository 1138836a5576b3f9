"""What SQL may do to a store that was opened to be written to: change its own tables, and still reach nothing
outside.

Decided as storage.sql.read_guard decides: from the statement as the engine formats it, with the engine's
syntax tree.
"""

import re
from collections.abc import Iterable, Sequence

from schemas.errors import QueryFailed
from storage.sql import read_guard as sql_guard
from storage.sql.read_guard import Node, Verdict

READONLY = 164

STATEMENTS = frozenset(
    {
        "AlterQuery",
        "CheckQuery",
        "CreateQuery",
        "CreateSQLFunctionQuery",
        "DeleteQuery",
        "DropFunctionQuery",
        "DropQuery",
        "InsertQuery",
        "OptimizeQuery",
        "Rename",
        "SYSTEM",
        "Set",
        "TruncateQuery",
        "UpdateQuery",
        "UseQuery",
    }
)
"""Roots of syntax trees that change tables, functions or the session."""

ENGINES = re.compile(
    r"(Replacing|Summing|Aggregating|Collapsing|VersionedCollapsing)?MergeTree|Memory|Null|Log|TinyLog|StripeLog|Atomic"
)
"""Engines of tables and databases that keep their data in the store's own folder."""

ALTERATIONS = re.compile(
    r"(ADD|DROP|MODIFY|RENAME|COMMENT|CLEAR|MATERIALIZE)_(COLUMN|INDEX|PROJECTION|CONSTRAINT|TTL|STATISTICS)"
    r"|REMOVE_TTL|(MODIFY|RESET)_SETTING|MODIFY_(ORDER_BY|SAMPLE_BY|QUERY|COMMENT)|DROP_PARTITION|REPLACE_PARTITION|MOVE_PARTITION|DELETE|UPDATE"
    r"|APPLY_DELETED_MASK"
)

OUTSIDE_SETTINGS = re.compile(
    r"readonly|profile|role|dialect|\w*format_schema\w*|\w*user_files\w*|allow_introspection_functions|allow_experimental_\w+_dialect"
    r"|implicit_\w+|disk|storage_policy|\w*_cache_path|output_format_write_\w+_file"
)
"""Settings that name files or disks, or say how SQL is read."""

_ENGINE = re.compile(r"\bENGINE = (\w+)")
_SYSTEM = re.compile(
    r"SYSTEM (START|STOP) (MERGES|TTL MERGES|MOVES|FETCHES)\b|SYSTEM FLUSH (LOGS|ASYNC INSERT QUEUE)\b|SYSTEM (SYNC|WAIT)\b"
)
_OUTSIDE_SETTING = re.compile(rf"(?:\bSETTINGS?|^SET|,) \(?({OUTSIDE_SETTINGS.pattern}) =")


def check(sql: str, tree: str) -> Verdict:
    """Decide on a formatted statement ``sql`` with its syntax tree: what only reads as storage.sql.read_guard
    does, the rest by the lists here.

    Raises QueryFailed (ACCESS_DENIED) for a statement that reaches outside.
    """
    names = sql_guard.nodes(tree)
    if sql_guard.reads(names):
        return sql_guard.check(sql, tree)
    words = sql_guard.bare(sql)
    if (
        not names
        or names[0].kind not in STATEMENTS
        or (names[0].kind == "SYSTEM" and not _SYSTEM.match(words))
    ):
        raise sql_guard.denied(f"{' '.join(sql.split(' ', 2)[:2])} is not allowed here")
    if re.search(r"\bFROM INFILE\b", words):
        raise sql_guard.denied("FROM INFILE is not allowed here: rows come in the body of the request")
    if outside := _OUTSIDE_SETTING.search(words):
        raise sql_guard.denied(f"setting {outside[1]} is not allowed here: it reaches outside the database")
    sql_guard.refuse_outside(names, words)
    if not sql_guard.plain_tables(names):
        raise sql_guard.denied(
            "tables with names that are not plain words are not allowed here: they could be files"
        )
    _refuse_foreign(names, words)
    return Verdict(None, 0)


def refuse_settings(settings: Iterable[str]) -> None:
    """Raise QueryFailed (READONLY) for a setting of a request that a write must not choose."""
    for name in settings:
        if OUTSIDE_SETTINGS.fullmatch(name):
            raise QueryFailed(
                READONLY, f"Code: {READONLY}. DB::Exception: Cannot modify '{name}' setting here. (READONLY)"
            )


def _refuse_foreign(names: Sequence[Node], words: str) -> None:
    """Engines, dictionaries and table functions as targets."""
    if foreign := [engine for engine in _ENGINE.findall(words) if not ENGINES.fullmatch(engine)]:
        raise sql_guard.denied(
            f"engine {foreign[0]} is not allowed here: tables are kept in the store's own folder (MergeTree, Memory, ...)"
        )
    for node in names:
        if node.kind == "Dictionary":
            raise sql_guard.denied("dictionaries are not allowed here: they reach outside the database")
        if node.kind == "AlterCommand" and not ALTERATIONS.fullmatch(node.name):
            raise sql_guard.denied(f"ALTER ... {node.name.replace('_', ' ')} is not allowed here")
        if node.depth == 1 and node.kind == "Function" and names[0].kind in {"InsertQuery", "CreateQuery"}:
            raise sql_guard.denied(
                f"table function {node.name} is not allowed here: it reaches outside the database"
            )
