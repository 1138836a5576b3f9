"""What SQL may do to a store that was opened to be written to: change its own tables, and still reach nothing
outside.

Decided as storage.sql.read_guard decides: from the statement as the engine formats it, with the engine's
syntax tree.
"""

import re
from collections.abc import Mapping, Sequence

from schemas.sql import Limits
from storage.sql import allowed, read_guard
from storage.sql.masking import Text, denied, mask
from storage.sql.read_guard import Verdict
from storage.sql.settings_clause import assignments
from storage.sql.syntax import Node, children, nodes

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

NODES = (
    allowed.NODES
    | STATEMENTS
    | {
        "AlterCommand",
        "Assignment",
        "ColumnDeclaration",
        "Columns",
        "Constraint",
        "Index",
        "NameTypePair",
        "Partition",
        "Projection",
        "ProjectionSelectQuery",
        "Statistics",
        "Storage",
        "TTLElement",
        "ViewTargets",
    }
)

ENGINES = re.compile(
    r"(Replacing|Summing|Aggregating|Collapsing|VersionedCollapsing)?MergeTree|Memory|Null|Log|TinyLog|StripeLog|Atomic"
)
"""Engines of tables and databases that keep their data in the store's own folder."""

CODECS = frozenset(
    {"ALP", "CODEC", "Delta", "DoubleDelta", "FPC", "GCD", "Gorilla", "LZ4", "LZ4HC", "NONE", "T64", "ZSTD"}
)

INDEXES = frozenset(
    {"bloom_filter", "hypothesis", "minmax", "ngrambf_v1", "set", "text", "tokenbf_v1", "vector_similarity"}
)
"""Kinds of data skipping indexes, which stand as functions do."""

ALTERATIONS = re.compile(
    r"(ADD|DROP|MODIFY|RENAME|COMMENT|CLEAR|MATERIALIZE)_(COLUMN|INDEX|PROJECTION|CONSTRAINT|TTL|STATISTICS)"
    r"|REMOVE_TTL|(MODIFY|RESET)_SETTING|MODIFY_(ORDER_BY|SAMPLE_BY|QUERY|COMMENT)|DROP_PARTITION|REPLACE_PARTITION|MOVE_PARTITION|DELETE|UPDATE"
    r"|APPLY_DELETED_MASK"
)

_ENGINE = re.compile(r"\bENGINE = (\w+)", re.ASCII)
_SYSTEM = re.compile(
    r"SYSTEM (START|STOP) (MERGES|TTL MERGES|MOVES|FETCHES) (\w+\.)?\w+$|SYSTEM FLUSH (LOGS|ASYNC INSERT QUEUE)\b|SYSTEM (SYNC|WAIT)\b"
)
_WHOLE_DATABASE = re.compile(r"(DROP|TRUNCATE|RENAME|ALTER) DATABASE (IF EXISTS )?default\b")
_TARGET = re.compile(r"\b(?:TO|INTO|FROM|TABLE|VIEW|DATABASE|USE|EXISTS|AND|CLONE AS|AS) $|\.$")
_PLACE = re.compile(
    r"\bON CLUSTER\b|\bTO (DISK|VOLUME|SHARD)\b|\bFROM '|\bDEFINER\b|\bSQL SECURITY\b|\bREFRESH\b"
)
_INSERT_END = re.compile(r"(?: SETTINGS \w+ = .*)? FORMAT \w+$")
_READING = ("SELECT", "WITH", "(", "EXPLAIN", "SHOW", "DESCRIBE", "EXISTS")
_OF_TABLES = {"CreateQuery", "AlterQuery"}


def check(
    sql: str,
    tree: str,
    *,
    database: str = "",
    parameters: Mapping[str, str] | None = None,
    limits: Limits | None = None,
) -> Verdict:
    """Decide on a formatted statement ``sql`` with its syntax tree: what only reads as storage.sql.read_guard
    does, the rest by the lists here.

    Raises QueryFailed (ACCESS_DENIED, READONLY) for a statement that reaches outside.
    """
    if re.match(r"(CREATE|ATTACH|REPLACE)( OR REPLACE)? DICTIONARY\b", sql):
        raise denied("dictionaries are not allowed here: they reach outside the database")
    names = nodes(tree)
    if read_guard.reads(names):
        return read_guard.check(sql, tree, database=database, parameters=parameters, limits=limits)
    text, root = mask(sql), names[0]
    if root.kind not in STATEMENTS or (root.kind == "SYSTEM" and not _SYSTEM.match(text.words)):
        raise denied(f"{' '.join(sql.split(' ', 2)[:2])} is not allowed here")
    _refuse_foreign(text, names)
    if unknown := [node.kind for node in names if node.kind not in NODES]:
        raise denied(f"{unknown[0]} is not allowed here")
    _refuse_places(text, names, database)
    verdict = read_guard.check_common(text, names, database, parameters or {}, limits)
    more = allowed.listed("settings_of_writes")
    if root.kind in _OF_TABLES:
        more |= allowed.listed("merge_tree_settings")
    chosen = assignments(text, sum(node.kind == "Set" for node in names))
    own = [one for one in chosen if one.name not in allowed.LIMITS]
    if outside := [one.name for one in own if not read_guard.is_choice(one.name, more)]:
        raise denied(f"setting {outside[0]} is not allowed here: it reaches outside the database")
    conditions = read_guard.check_settings(own, limits, more)
    functions = frozenset(name for name in verdict.functions if not _is_definition(name, root))
    return Verdict(None, 0, functions, frozenset(), conditions)


def check_clauses(sql: str, limits: Limits | None) -> None:
    """Raise QueryFailed for a formatted statement that chooses settings which it may not choose."""
    if sql.startswith(_READING):
        read_guard.check_clauses(sql, limits)
        return
    more = allowed.listed("settings_of_writes") | allowed.listed("merge_tree_settings")
    for name, _ in assignments(mask(sql), 0):
        if name not in allowed.LIMITS and not read_guard.is_choice(name, more):
            raise denied(f"setting {name} is not allowed here: it reaches outside the database")


def check_definition(sql: str, tree: str) -> frozenset[str]:
    """The functions that a SQL function's body needs besides the engine's own.

    Raises QueryFailed (ACCESS_DENIED) for a body that reaches outside.
    """
    text, names = mask(sql), nodes(tree)
    if names[0].kind != "CreateSQLFunctionQuery":
        raise denied("only SQL functions are allowed here")
    return frozenset(read_guard.check_common(text, names, "", {}, None).functions) - {names[0].name}


def check_rows_format(name: str) -> None:
    """Raise QueryFailed (ACCESS_DENIED) for a format of rows that reads files or asks other machines."""
    if name not in allowed.listed("formats") | allowed.listed("formats_of_rows"):
        raise denied(f"FORMAT {name} is not allowed here")


def with_infile(sql: str, path: str) -> str:
    """A formatted ``INSERT ... FORMAT x`` whose rows come from a file; ``path`` is quoted already."""
    clauses = _INSERT_END.search(mask(sql).masked)
    if clauses is None:
        raise denied("an INSERT of rows needs a FORMAT")
    return f"{sql[: clauses.start()]} FROM INFILE {path} COMPRESSION 'none'{sql[clauses.start() :]}"


def _refuse_foreign(text: Text, names: Sequence[Node]) -> None:
    """Engines, dictionaries, alterations, formats and table functions as targets."""
    engines = _ENGINE.findall(text.words)
    for at, node in enumerate(names):
        if node.kind == "Storage":
            inside = [names[child] for child in children(names, at)]
            engines += [inside[0].name] if inside and inside[0].kind == "Function" else []
        if node.kind == "AlterCommand" and not ALTERATIONS.fullmatch(node.name):
            raise denied(f"ALTER ... {node.name.replace('_', ' ')} is not allowed here")
        if node.depth == 1 and node.kind == "Function" and names[0].kind in {"InsertQuery", "CreateQuery"}:
            raise denied(f"table function {node.name} is not allowed here: it reaches outside the database")
    if foreign := [engine for engine in engines if not ENGINES.fullmatch(engine)]:
        raise denied(
            f"engine {foreign[0]} is not allowed here: tables are kept in the store's own folder (MergeTree, Memory, ...)"
        )
    if len(re.findall(r"\bENGINE\b", text.masked)) > len(_ENGINE.findall(text.words)):
        raise denied("an ENGINE of this statement cannot be read")
    for name in re.findall(r"\bFORMAT (\w+)", text.masked):
        check_rows_format(name)


def _refuse_places(text: Text, names: Sequence[Node], database: str) -> None:
    """Databases of the engine, other places, names that could be files."""
    if place := _PLACE.search(text.masked):
        raise denied(f"{place[0].strip()} is not allowed here")
    if _WHOLE_DATABASE.match(text.words):
        raise denied("database default stays: every query needs it")
    if names[0].kind not in {"Set", "CreateSQLFunctionQuery", "DropFunctionQuery"}:
        targets = [node for node in names if node.depth == 1 and node.kind == "Identifier"]
        targets += [node for node in names if node.kind == "TableIdentifier" and node.depth == 2]
        bases = {target.name.partition(".")[0].lower() for target in targets} | {database.lower()}
        if names[0].kind == "CreateQuery" and " TO system." in text.words.replace("SYSTEM.", "system."):
            bases.add("system")
        if named := bases & allowed.SYSTEM_DATABASES:
            raise denied(f"database {named.pop()} is the engine's own")
        if any(not re.fullmatch(r"\w+(\.\w+)?", target.name, re.ASCII) for target in targets):
            raise denied(
                "tables with names that are not plain words are not allowed here: they could be files"
            )
    for match in re.finditer(r"_{3,}", text.masked):
        quoted = text.sql[match.start()] in '`"'
        if quoted and _TARGET.search(text.masked[: match.start()]) and _is_target(text, match.start()):
            raise denied(
                "tables with names that are not plain words are not allowed here: they could be files"
            )


def _is_target(text: Text, start: int) -> bool:
    """Whether a quoted name stands where a table's or a database's does, not a column's alias."""
    before = text.masked[:start]
    if re.search(r" (COLUMN|INDEX|PROJECTION|CONSTRAINT|STATISTICS) IF (NOT )?EXISTS $", before):
        return False
    return not before.endswith(" AS ") or bool(re.match(r"CREATE [A-Z ]*\w+(\.\w+)? (CLONE )?AS $", before))


def _is_definition(name: str, root: Node) -> bool:
    """Words before a parenthesis that are none of a function's: engines, codecs, indexes, names of tables."""
    return (
        bool(ENGINES.fullmatch(name)) or name in CODECS or name in INDEXES or _is_name_before_list(name, root)
    )


def _is_name_before_list(name: str, root: Node) -> bool:
    return root.kind in {"CreateQuery", "InsertQuery"} and name in root.name.split(" ")
