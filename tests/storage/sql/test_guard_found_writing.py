"""What was found on the port that reads, and more, on the one that writes."""

from collections.abc import Iterator
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.sql import Query, Session
from tests.storage.sql.forbidden import FOUND, FOUND_WRITING, Place, place, query
from tests.support.examples import examples


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with place(tmp_path_factory.mktemp("writing"), writable=True) as writing:
        yield writing


@pytest.mark.parametrize("sql", FOUND + FOUND_WRITING)
def test_what_was_found_is_refused(here: Place, sql: str) -> None:
    parameters = {"t": str(here.secret)}
    here.refuse(Query(here.fill(sql, Random(0)), parameters=parameters))
    session = Session("mine", 60, must_exist=False)
    here.refuse(Query(here.fill(sql, Random(0)), parameters=parameters, session=session))


@examples(150)
@given(st.randoms(use_true_random=False))
def test_no_quoting_lets_a_forbidden_form_through(here: Place, random: Random) -> None:
    here.check(query(here, random))
    here.probe()
