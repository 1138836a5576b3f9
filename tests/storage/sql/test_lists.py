"""Each name that the installed engine knows is in an allowed list or in a refused one."""

from collections.abc import Iterator
from typing import Any

import pytest

from storage import embedded
from storage.sql import allowed
from storage.sql.allowed import listed


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    connection = embedded.connect(tmp_path_factory.mktemp("lists"))
    yield connection
    connection.close()


def names(connection: Any, sql: str) -> set[str]:
    return set(connection.query(sql, "TSVRaw").bytes().decode().split("\n")) - {""}


KINDS = {
    "functions": (
        "SELECT name FROM system.functions WHERE origin = 'System' AND NOT is_aggregate",
        listed("functions"),
        listed("functions_refused"),
    ),
    "aggregate functions": (
        "SELECT name FROM system.functions WHERE origin = 'System' AND is_aggregate",
        listed("aggregates"),
        listed("functions_refused"),
    ),
    "table functions": (
        "SELECT name FROM system.table_functions",
        listed("table_functions"),
        listed("table_functions_refused"),
    ),
    "settings": (
        "SELECT name FROM system.settings",
        listed("settings") | listed("settings_of_writes") | allowed.FILTERS | frozenset(allowed.LIMITS),
        listed("settings_refused"),
    ),
    "settings of tables": (
        "SELECT name FROM system.merge_tree_settings",
        listed("merge_tree_settings"),
        listed("merge_tree_settings_refused"),
    ),
    "formats": (
        "SELECT name FROM system.formats",
        listed("formats") | listed("formats_of_rows"),
        listed("formats_refused"),
    ),
    "system tables": (
        "SELECT name FROM system.tables WHERE database = 'system'",
        listed("system_tables"),
        listed("system_tables_refused"),
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_name_of_the_engine_is_allowed_or_refused(connection: Any, kind: str) -> None:
    sql, taken, refused = KINDS[kind]
    known = names(connection, sql)
    assert known, "the engine names them"
    assert known - taken - refused == set(), "new in this engine: read what they do, then list them"
    assert taken & refused == set()


def test_no_refused_function_hides_behind_an_allowed_one_by_case() -> None:
    refused = {name.lower() for name in listed("functions_refused")}
    assert refused & {name.lower() for name in listed("functions") | listed("aggregates")} == set()
    assert all(not allowed.is_function(name.upper()) for name in listed("functions_refused"))


def test_only_known_combinators_make_an_aggregate_function(connection: Any) -> None:
    for combinator in names(connection, "SELECT name FROM system.aggregate_function_combinators"):
        assert allowed.is_function(f"sum{combinator}")
    assert not allowed.is_function("sumElsewhere")
    assert not allowed.is_function("fileIf")
