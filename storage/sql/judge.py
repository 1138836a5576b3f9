"""The verdict on one statement: what the guards need to know of it is asked of the engine here."""

import json
import time
from collections.abc import Callable, Iterable, Mapping

from schemas.errors import QueryFailed
from schemas.sql import Limits, Query
from storage.sql import read_guard, write_guard
from storage.sql.masking import denied
from storage.sql.query_settings import escape, filters
from storage.sql.read_guard import Verdict

UNKNOWN_FUNCTION = 46
UNKNOWN_TABLE = 60
_DEEPEST = 4
_MOST_KNOWN = 10_000
_FUNCTIONS_HOLD_S = 60.0
"""How long the verdict on a SQL function holds on a port that only reads: the engine takes 0.1 s to list
one, and dashboards name ``quantileOfHistogram`` in every query. On a writable port functions change at will.
"""

Ask = Callable[[str, Mapping[str, str]], str]
"""Runs a statement of ours with parameters; gives its answer as TSVRaw, without the last line's end."""


class Judge:
    """Decides on statements; remembers which tables and functions are there.

    May be used from several threads.
    """

    def __init__(self, *, writable: bool, database: str) -> None:
        """``database`` is the one in use where a query names none."""
        self._writable = writable
        self._database = database
        self._known: set[tuple[str, str]] = set()
        self._passed: set[str] = set()
        self._functions: dict[str, float] = {}

    def decide(self, ask: Ask, query: Query, limits: Limits) -> tuple[str, Verdict]:
        """The statement as the engine formats it, and what it may do.

        Raises QueryFailed: it may not run, or is not SQL.
        """
        read_guard.check_format(query.default_format)
        sql, verdict = self._decide(ask, query.sql, query, limits, depth=0)
        for condition in filters(query.settings):
            self._decide_condition(ask, condition, query, limits, depth=1)
        if not (self._writable and query.session):
            self._check_tables(ask, verdict.tables, query.database or self._database)
        return sql, verdict

    def _decide(self, ask: Ask, sql: str, query: Query, limits: Limits, depth: int) -> tuple[str, Verdict]:
        formatted = ask("SELECT formatQuerySingleLine({meshflow_sql:String})", {"meshflow_sql": escape(sql)})
        writes = self._writable and query.settings.get("readonly", "0") == "0"
        # Before the engine sees the statement itself: EXPLAIN AST already applies the settings in it.
        (write_guard if writes else read_guard).check_clauses(formatted, limits)
        tree = ask(f"EXPLAIN AST {formatted}", query.parameters)
        check = write_guard.check if writes else read_guard.check
        verdict = check(
            formatted,
            tree,
            database=query.database or self._database,
            parameters=query.parameters,
            limits=limits,
        )
        for condition in verdict.conditions:
            self._decide_condition(ask, condition, query, limits, depth + 1)
        self._check_functions(ask, verdict.functions, depth)
        return formatted, verdict

    def _decide_condition(self, ask: Ask, condition: str, query: Query, limits: Limits, depth: int) -> None:
        """A condition in a setting: by the rules of a query that has it."""
        if depth > _DEEPEST:
            raise denied("filters within filters are not allowed here")
        if condition.strip():
            _, verdict = self._decide(ask, f"SELECT 1 WHERE (\n{condition}\n)", query, limits, depth)
            if verdict.readonly == 0:
                raise denied("a filter is a condition")
            self._check_tables(ask, verdict.tables, query.database or self._database)

    def _check_functions(self, ask: Ask, names: Iterable[str], depth: int) -> None:
        """SQL functions: by what they are made of."""
        now_s = time.monotonic()
        wanted = sorted(name for name in set(names) if self._functions.get(name, now_s) <= now_s)
        if not wanted:
            return
        if any(not name.isidentifier() for name in wanted) or depth > _DEEPEST:
            raise _unknown_function(wanted[0])
        listed = ", ".join(f"'{name}'" for name in wanted)
        answer = ask(
            "SELECT toJSONString((name, create_query)) FROM system.functions"
            f" WHERE origin = 'SQLUserDefined' AND name IN ({listed})",
            {},
        )
        found = dict(json.loads(line) for line in answer.splitlines())
        for name in wanted:
            if name not in found:
                raise _unknown_function(name)
            self._check_definition(ask, found[name], depth)
            if not self._writable and len(self._functions) < _MOST_KNOWN:
                self._functions[name] = now_s + _FUNCTIONS_HOLD_S

    def _check_definition(self, ask: Ask, definition: str, depth: int) -> None:
        if definition in self._passed:
            return
        sql = ask("SELECT formatQuerySingleLine({meshflow_sql:String})", {"meshflow_sql": escape(definition)})
        self._check_functions(
            ask, write_guard.check_definition(sql, ask(f"EXPLAIN AST {sql}", {})), depth + 1
        )
        if len(self._passed) < _MOST_KNOWN:
            self._passed.add(definition)

    def _check_tables(self, ask: Ask, tables: Iterable[tuple[str, str]], database: str) -> None:
        """Only what is there is opened: a name that is not could be a file's."""
        wanted = {(base or database, name) for base, name in tables}
        wanted = {(base, name) for base, name in wanted if base.lower() != "system"} - self._known
        if not wanted:
            return
        pairs = ", ".join(f"('{base}', '{name}')" for base, name in sorted(wanted))
        answer = ask(
            f"SELECT database, name FROM system.tables WHERE (database, name) IN ({pairs}) OR is_temporary",
            {},
        )
        found = {tuple(line.split("\t", 1)) for line in answer.splitlines()}
        if missing := sorted(wanted - found):
            base, name = missing[0]
            text = f"Table {base}.{name} does not exist. (UNKNOWN_TABLE)"
            raise QueryFailed(UNKNOWN_TABLE, f"Code: {UNKNOWN_TABLE}. DB::Exception: {text}")
        if len(self._known) < _MOST_KNOWN:
            self._known |= wanted


def _unknown_function(name: str) -> QueryFailed:
    text = f"Function with name `{name}` does not exist, or is not allowed here. (UNKNOWN_FUNCTION)"
    return QueryFailed(UNKNOWN_FUNCTION, f"Code: {UNKNOWN_FUNCTION}. DB::Exception: {text}")
