"""Statements that once read or wrote files, changed limits, showed others' queries or ended everything."""

from collections.abc import Iterator
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import QueryFailed
from schemas.sql import Query
from tests.storage.sql import forbidden
from tests.storage.sql.forbidden import LIMITS, Place, place, query
from tests.support.examples import examples


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with place(tmp_path_factory.mktemp("reading"), writable=False) as reading:
        yield reading


@pytest.mark.parametrize("sql", forbidden.FOUND)
def test_what_was_found_is_refused(here: Place, sql: str) -> None:
    here.refuse(Query(here.fill(sql, Random(0)), parameters={"t": str(here.secret)}))


@pytest.mark.parametrize(
    ("name", "value"), [one for one in forbidden.SETTINGS if one[0].startswith(("f", "ad"))]
)
@pytest.mark.parametrize("output_format", ["TSV", "Template"])
def test_settings_of_a_request_reach_no_file(here: Place, name: str, value: str, output_format: str) -> None:
    asked = Query("SELECT * FROM calls", output_format, settings={name: here.fill(value, Random(0))})
    here.refuse(asked)


def test_a_file_in_the_working_directory_is_no_table(here: Place) -> None:
    for sql in ("SELECT * FROM treasure", "SELECT 'x' IN (treasure)", "DESCRIBE treasure"):
        with pytest.raises(QueryFailed) as failed:
            here.engine.execute(Query(sql), LIMITS)
        assert forbidden.TREASURE not in str(failed.value)
    assert here.engine.execute(Query("EXISTS treasure"), LIMITS).body == b"0\n"


def test_settings_may_lower_a_limit_in_the_clause_as_in_the_url(here: Place) -> None:
    sql = "SELECT getSetting('max_execution_time')"
    assert here.engine.execute(Query(f"{sql} SETTINGS max_execution_time = 5"), LIMITS).body == b"5\n"
    assert here.engine.execute(Query(sql, settings={"max_execution_time": "5"}), LIMITS).body == b"5\n"
    for over in ("21", "0", "-1", "'nan'", "1e9"):
        here.refuse(Query(f"{sql} SETTINGS max_execution_time = {over}"))


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT toLowCardinality(repeat('x', 100000)) FROM numbers(1000)",
        "SELECT repeat('x', 100000) FROM numbers(1000) FORMAT JSON",
        "SELECT toString(number) FROM numbers(1000000)",
    ],
)
def test_an_answer_is_bounded_by_the_bytes_that_leave(here: Place, sql: str) -> None:
    with pytest.raises(QueryFailed) as failed:
        here.engine.execute(Query(sql), LIMITS)
    assert failed.value.code in {241, 396}, "too much memory, or too many bytes"
    here.probe()


def test_an_answer_just_within_its_limit_is_whole(here: Place) -> None:
    sql = "SELECT toLowCardinality(repeat('x', 999)) FROM numbers(1000)"
    assert len(here.engine.execute(Query(sql), replace(LIMITS, result_bytes=1_000_000)).body) == 1_000_000
    with pytest.raises(QueryFailed):
        here.engine.execute(Query(sql), replace(LIMITS, result_bytes=999_999))


@examples(150)
@given(st.randoms(use_true_random=False))
def test_no_quoting_lets_a_forbidden_form_through(here: Place, random: Random) -> None:
    here.check(query(here, random))
