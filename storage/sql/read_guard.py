"""What read-only SQL may do: decided from the statement as the engine itself parses it.

The statement arrives formatted by the engine (``formatQuerySingleLine``: one statement, no comments, one
spelling), with its syntax tree (``EXPLAIN AST``), so no SQL is parsed here. Two views of it have to agree:
the tree, and the words that stay when all that is quoted is masked (the tree leaves a few things out: lambdas
of APPLY, TTLs of columns). All that is not in storage.sql.allowed is refused.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from schemas.errors import QueryFailed
from schemas.sql import Limits
from storage.sql import allowed
from storage.sql.masking import Text, denied, mask
from storage.sql.settings_clause import Assignment, assignments, explain_settings, pairs
from storage.sql.syntax import Node, arguments, children, nodes

READONLY = 164
UNKNOWN_FORMAT = 73

_CALL = re.compile(r"(\w+)\(", re.ASCII)
_WORD = re.compile(r"\w+", re.ASCII)
_PLAIN_TABLE = re.compile(r"(?:(\w+)\.)?(\w+)", re.ASCII)
_PLAIN_COLUMN = re.compile(r"\w+(\.\w+)*", re.ASCII)
_APPLY = re.compile(r"\bAPPLY (\w+)(?:\((?:'_*'|[\d., ])*\))?(?=[ ,)]|$)", re.ASCII)
_FORMAT = re.compile(r"\bFORMAT (\w+)")
_OWN_FORMAT = re.compile(r" FORMAT (\w+)(?: SETTINGS .*)?$")
_SHOW = re.compile(
    r"SHOW (?:(?:FULL )?(?:TEMPORARY )?TABLES|DATABASES|(?:CHANGED )?SETTINGS)"
    r"(?: FROM (\w+))?(?: (?:NOT )?I?LIKE '')?(?: LIMIT \d+)?(?= FORMAT | SETTINGS |$)"
)
_SHOW_COLUMNS = re.compile(
    r"SHOW (?:EXTENDED )?(?:FULL )?(?:COLUMNS|INDEXES) FROM (?:(\w+)\.)?(\w+)(?: FROM (\w+))?"
    r"(?: (?:NOT )?I?LIKE '')?(?: LIMIT \d+)?(?= FORMAT | SETTINGS |$)"
)
_IN = re.compile(r"(global)?(not)?(null)?in(ignoreset)?", re.IGNORECASE)
_CTE = re.compile(r"(\w+)(?: \([\w, ]+\))? AS (?:MATERIALIZED )?\(", re.ASCII)


@dataclass(frozen=True, slots=True)
class Verdict:
    """A statement that may run, once what it needs is there."""

    format: str | None
    """Its own FORMAT, if it has one."""
    readonly: int
    """Level of the engine's ``readonly`` setting to run it at: 2 allows settings, 1 does not, 0 writes."""
    functions: frozenset[str] = frozenset()
    """Functions that are not the engine's: their definitions have to pass too."""
    tables: frozenset[tuple[str, str]] = frozenset()
    """(database or "", table) that have to exist."""
    conditions: tuple[str, ...] = field(default=())
    """Conditions in the values of settings: these have to pass too."""


def check(
    sql: str,
    tree: str,
    *,
    database: str = "",
    parameters: Mapping[str, str] | None = None,
    limits: Limits | None = None,
) -> Verdict:
    """Decide on a formatted statement ``sql`` with its syntax tree (the text of EXPLAIN AST).

    ``database`` is the one in use, ``parameters`` are the values of placeholders, ``limits`` bound the cost.
    Raises QueryFailed (ACCESS_DENIED, READONLY) for a statement that is not read-only or reaches outside.
    """
    text, names = mask(sql), nodes(tree)
    if not reads(names):
        raise denied(f"{sql.split(' ', 1)[0]} is not allowed here: this port only reads")
    if unknown := [node.kind for node in names if node.kind not in allowed.NODES]:
        raise denied(f"{unknown[0]} is not allowed here: this port only reads")
    if names[0].kind in {"ShowTables", "ShowColumns", "ShowIndexes"}:
        _check_show(names[0], text, database)
    return _verdict(text, names, database, parameters or {}, limits, writes=False)


def reads(names: Sequence[Node]) -> bool:
    """Whether a statement is one of those that only read."""
    root = names[0]
    return root.kind in allowed.STATEMENTS and (root.kind != "Explain" or root.name in allowed.EXPLAINS)


def check_common(
    text: Text, names: Sequence[Node], database: str, parameters: Mapping[str, str], limits: Limits | None
) -> Verdict:
    """The rules of reading, for the parts of a statement that writes."""
    return _verdict(text, names, database, parameters, limits, writes=True)


def check_settings(
    chosen: Iterable[Assignment], limits: Limits | None, more: frozenset[str] = frozenset()
) -> tuple[str, ...]:
    """The conditions in settings that a statement chooses.

    Raises QueryFailed for a setting that it may not choose.
    """
    conditions: list[str] = []
    for name, value in chosen:
        if name in allowed.LIMITS:
            _check_limit(name, value, limits)
        elif name == "additional_table_filters":
            conditions += [condition for _, condition in pairs(value)]
        elif name == "additional_result_filter":
            conditions.append(value)
        elif not is_choice(name, more):
            raise refused_setting(name)
    return tuple(conditions)


def check_clauses(sql: str, limits: Limits | None) -> None:
    """Raise QueryFailed for a formatted statement that chooses settings which it may not choose."""
    if sql.startswith("SET "):
        raise denied("SET is not allowed here: this port only reads")
    check_settings(assignments(mask(sql), 0), limits)


def is_choice(name: str, more: frozenset[str] = frozenset()) -> bool:
    """Whether a statement may choose a setting; ``more`` are those of its kind."""
    return name in allowed.listed("settings") or name in allowed.FILTERS or name in more


def refused_setting(name: str) -> QueryFailed:
    """READONLY, as ClickHouse would say it."""
    text = f"Code: {READONLY}. DB::Exception: Cannot modify '{name}' setting in readonly mode. (READONLY)"
    return QueryFailed(READONLY, text)


def check_format(name: str) -> None:
    """Raise QueryFailed for a format of answers that reads files or asks other machines, or is none."""
    if name in allowed.listed("formats"):
        return
    if name in allowed.listed("formats_refused") | allowed.listed("formats_of_rows"):
        raise denied(f"FORMAT {name} is not allowed here")
    text = f"Code: {UNKNOWN_FORMAT}. DB::Exception: Unknown format {name}. (UNKNOWN_FORMAT)"
    raise QueryFailed(UNKNOWN_FORMAT, text)


def own_format(sql: str) -> str | None:
    """The FORMAT that a formatted statement ends with."""
    clause = _OWN_FORMAT.search(mask(sql).masked)
    return clause[1] if clause else None


def without_format(sql: str) -> str:
    """The formatted statement without its own FORMAT clause (and the settings that may follow it)."""
    clause = _OWN_FORMAT.search(mask(sql).masked)
    return sql[: clause.start()] if clause else sql


def with_outfile(sql: str, path: str) -> str:
    """A formatted statement whose answer goes to a file; ``path`` is quoted already."""
    clause = _OWN_FORMAT.search(mask(sql).masked)
    at = clause.start() if clause else len(sql)
    return f"{sql[:at]} INTO OUTFILE {path} APPEND{sql[at:]}"


def _verdict(
    text: Text,
    names: Sequence[Node],
    database: str,
    parameters: Mapping[str, str],
    limits: Limits | None,
    *,
    writes: bool,
) -> Verdict:
    _refuse_files(text, names, parameters)
    functions = _functions(text, names)
    sets = sum(node.kind == "Set" for node in names)
    conditions: tuple[str, ...] = ()
    if not writes:
        own = explain_settings(text) if names[0].kind == "Explain" else []
        if strange := [name for name, _ in own if name not in allowed.EXPLAIN_SETTINGS]:
            raise refused_setting(strange[0])
        conditions = check_settings(assignments(text, sets - bool(own)), limits)
        for name in _FORMAT.findall(text.masked):
            check_format(name)
    tables = _tables(text, names, database, parameters)
    clause = _OWN_FORMAT.search(text.masked)
    if names[0].kind == "SelectWithUnionQuery":
        formats = [names[child].name for child in children(names, 0) if names[child].kind == "Identifier"]
        if formats != ([clause[1]] if clause else []):
            raise denied("the FORMAT of this statement cannot be read")
    level = 0 if writes else 2 if sets or names[0].kind == "SelectWithUnionQuery" else 1
    return Verdict(clause[1] if clause else None, level, functions, tables, conditions)


def _refuse_files(text: Text, names: Sequence[Node], parameters: Mapping[str, str]) -> None:
    if re.search(r"\bINTO OUTFILE\b", text.masked) or (
        names[0].kind == "SelectWithUnionQuery"
        and any(names[child].kind == "Literal" for child in children(names, 0))
    ):
        raise denied("INTO OUTFILE is not allowed here: the answer comes back over HTTP")
    if re.search(r"\bINFILE\b", text.masked):
        raise denied("FROM INFILE is not allowed here: rows come in the body of the request")
    for placeholder in re.findall(r"\{(\w+):Identifier\}", text.masked):
        value = parameters.get(placeholder, "")
        if not _PLAIN_COLUMN.fullmatch(value):
            raise denied(f"{{{placeholder}:Identifier}} takes plain names here")


def _functions(text: Text, names: Sequence[Node]) -> frozenset[str]:
    """Functions that are not the engine's own.

    Raises QueryFailed (ACCESS_DENIED) for functions that are refused.
    """
    lambdas = {
        node.alias for node in names if node.kind == "Function" and node.name == "lambda" and node.alias
    }
    sources = {
        child
        for at, node in enumerate(names)
        if node.kind == "TableExpression"
        for child in children(names, at)
        if names[child].kind == "Function"
    }
    _check_sources(names, sources)
    _refuse_names(text, names)
    applied = [match[1] for match in _APPLY.finditer(text.masked)]
    if len(applied) < len(re.findall(r"\bAPPLY\b", text.masked)):
        raise denied("APPLY takes the name of a function here, no lambda")
    called = {node.name for at, node in enumerate(names) if node.kind == "Function" and at not in sources}
    called |= {name for name in _CALL.findall(text.words) if name not in allowed.TYPES} | set(applied)
    called -= {names[at].name for at in sources} & allowed.listed("table_functions")
    for name in called & allowed.listed("table_functions_refused"):
        if not allowed.is_function(name):
            raise denied(f"table function {name} is not allowed here: it reaches outside the database")
    return frozenset(name for name in called - lambdas if not allowed.is_function(name))


def _refuse_names(text: Text, names: Sequence[Node]) -> None:
    """Functions that are refused, wherever their names stand: a function can be handed on by name."""
    for word in _WORD.findall(text.words):
        if allowed.is_function_refused(word):
            raise denied(f"function {word} is not allowed here: it reaches outside the database")
    for node in names:
        last = node.name.rsplit(".", 1)[-1]
        if node.kind in {"Identifier", "Function"} and allowed.is_function_refused(last):
            raise denied(f"function {last} is not allowed here: it reaches outside the database")


def _check_sources(names: Sequence[Node], sources: Iterable[int]) -> None:
    """Table functions."""
    if foreign := [
        names[at].name for at in sources if names[at].name not in allowed.listed("table_functions")
    ]:
        raise denied(f"table function {foreign[0]} is not allowed here: it reaches outside the database")
    for at in sources:
        if names[at].name == "merge":
            _check_merge(names, at)


def _check_merge(names: Sequence[Node], at: int) -> None:
    given = arguments(names, at)
    literals = [names[argument].name for argument in given if names[argument].kind == "Literal"]
    if len(literals) != len(given) or (
        len(given) == 2
        and (not re.fullmatch(r"'\w+'", literals[0], re.ASCII) or _is_system(literals[0].strip("'")))
    ):
        raise denied("table function merge takes the name of a database and a pattern here")


def _tables(
    text: Text, names: Sequence[Node], database: str, parameters: Mapping[str, str]
) -> frozenset[tuple[str, str]]:
    """Tables that have to exist; raises QueryFailed (ACCESS_DENIED) for names that could be files'."""
    strange = text.odd_names | {value for value in parameters.values() if "." in value}
    common = set(_CTE.findall(text.words))
    found = set()
    for at, node in enumerate(names):
        if node.kind == "TableIdentifier":
            found.add(_table(node.name, strange, database))
        elif node.kind in {
            "ExistsTableQuery",
            "ExistsViewQuery",
            "ShowCreateTableQuery",
            "ShowCreateViewQuery",
        }:
            parts = [names[child].name for child in children(names, at) if names[child].kind == "Identifier"]
            _table(".".join(parts[:2]), strange, database)
            if any(not _WORD.fullmatch(part) for part in parts):
                raise _not_plain(".".join(parts))
            if not node.kind.startswith("Exists"):
                found.add(("", parts[0]) if len(parts) < 2 else (parts[0], parts[1]))
        elif node.kind == "Function" and _IN.fullmatch(node.name):
            for operand in arguments(names, at)[1:2]:
                if names[operand].kind == "Identifier":
                    _check_operand(names[operand].name, strange, database)
    return frozenset((base, name) for base, name in found if base or name not in common)


def _table(name: str, strange: Iterable[str], database: str) -> tuple[str, str]:
    match = _PLAIN_TABLE.fullmatch(name)
    if match is None or any(name == odd or name.endswith(f".{odd}") for odd in strange):
        raise _not_plain(name)
    base, table = match[1] or "", match[2]
    _check_system(base or database, table)
    return base, table


def _check_operand(name: str, strange: Iterable[str], database: str) -> None:
    """What stands right of IN: a column, or a table."""
    if not _PLAIN_COLUMN.fullmatch(name) or any(name == odd or name.endswith(f".{odd}") for odd in strange):
        raise _not_plain(name)
    base, _, table = name.rpartition(".")
    _check_system(base or database, table)


def _check_system(base: str, table: str) -> None:
    if base.lower() == "system" and table not in allowed.listed("system_tables"):
        raise denied(f"system.{table} is not allowed here: it shows more than the database's own tables")


def _check_show(root: Node, text: Text, database: str) -> None:
    """SHOW, of which the tree has no parts."""
    words = text.words
    if root.kind == "ShowTables":
        match = _SHOW.match(words)
        if match is None or text.odd_names:
            raise denied(
                f"{words[:40]} is not allowed here: SHOW TABLES, DATABASES or SETTINGS with LIKE and LIMIT"
            )
        return
    match = _SHOW_COLUMNS.match(words)
    if match is None or text.odd_names:
        raise denied(f"{words[:40]} is not allowed here: SHOW COLUMNS FROM a table, with LIKE and LIMIT")
    _check_system(match[1] or match[3] or database, match[2])


def _check_limit(name: str, value: str, limits: Limits | None) -> None:
    bound = float(getattr(limits, allowed.LIMITS[name])) if limits else 0.0
    try:
        asked = float(value)
    except ValueError:
        raise refused_setting(name) from None
    if not 0 < asked <= bound:
        raise refused_setting(name)


def _is_system(database: str) -> bool:
    return database.lower() in allowed.SYSTEM_DATABASES


def _not_plain(name: str) -> QueryFailed:
    return denied(f"{name!r} is not allowed here: tables with names that are not plain words could be files")
