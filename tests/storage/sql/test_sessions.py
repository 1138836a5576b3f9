"""Sessions of `meshflow store --writable`: what lasts in them, and what does not."""

from collections.abc import Iterator
from typing import Any

import pytest

from schemas.errors import QueryFailed
from schemas.sql import Limits, Query, Session
from storage.sql.chdb_engine import ChdbEngine
from storage.sql.sessions import LONGEST_TIMEOUT_S, MOST_SESSIONS, Sessions

LIMITS = Limits(time_s=60, memory_bytes=512 << 20, threads=1, result_bytes=4 << 20)


class Connection:
    def __init__(self) -> None:
        self.closed = False

    def close(self) -> None:
        self.closed = True


def use(sessions: Sessions, name: str, now_s: float, timeout_s: float = 60, must_exist: bool = False) -> Any:
    with sessions.borrow(Session(name, timeout_s, must_exist), now_s) as connection:
        return connection


def test_a_session_lasts_until_its_timeout() -> None:
    sessions = Sessions(Connection)
    first = use(sessions, "a", 0)
    assert use(sessions, "a", 59) is first
    assert use(sessions, "b", 59) is not first
    assert use(sessions, "a", 118) is first
    assert use(sessions, "a", 179) is not first
    assert first.closed
    last = use(sessions, "c", 179, timeout_s=1e9)
    assert use(sessions, "c", 178 + LONGEST_TIMEOUT_S) is last
    sessions.close()
    assert last.closed


def test_one_query_at_a_time() -> None:
    sessions = Sessions(Connection)
    with sessions.borrow(Session("a", 60, must_exist=False), 0) as connection:
        with pytest.raises(QueryFailed, match="locked by a concurrent client") as failed:
            use(sessions, "a", 1000)
        assert failed.value.code == 373
        assert not connection.closed
    assert use(sessions, "a", 2) is connection


def test_a_session_that_must_exist() -> None:
    sessions = Sessions(Connection)
    with pytest.raises(QueryFailed, match="Session a not found") as failed:
        use(sessions, "a", 0, must_exist=True)
    assert failed.value.code == 372
    use(sessions, "a", 0)
    use(sessions, "a", 1, must_exist=True)


def test_there_are_not_too_many() -> None:
    sessions = Sessions(Connection)
    for number in range(MOST_SESSIONS):
        use(sessions, str(number), 0)
    with pytest.raises(QueryFailed, match="sessions are open"):
        use(sessions, "more", 1)
    use(sessions, "more", 61)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChdbEngine]:
    engine = ChdbEngine(str(tmp_path_factory.mktemp("store")), writable=True)
    yield engine
    engine.close()


def ask(engine: ChdbEngine, sql: str, session: str = "mine", **settings: str) -> bytes:
    return engine.execute(
        Query(sql, settings=settings, session=Session(session, 60, must_exist=False)), LIMITS
    ).body


def test_temporary_tables_and_set_last_in_their_session_alone(engine: ChdbEngine) -> None:
    ask(engine, "CREATE TEMPORARY TABLE seen (n UInt8)")
    ask(engine, "INSERT INTO seen SELECT 7")
    ask(engine, "SET max_block_size = 777, max_threads = 3")
    assert ask(engine, "SELECT n, getSetting('max_block_size') FROM seen") == b"7\t777\n"
    assert ask(engine, "SELECT getSetting('max_block_size')", session="other") != b"777\n"
    with pytest.raises(QueryFailed) as failed:
        ask(engine, "SELECT * FROM seen", session="other")
    assert failed.value.code == 60


def test_settings_of_a_query_end_with_it(engine: ChdbEngine) -> None:
    ask(engine, "SET max_block_size = 777", session="set")
    assert ask(engine, "SELECT getSetting('max_block_size')", session="set", max_block_size="5") == b"5\n"
    assert ask(engine, "SELECT getSetting('max_block_size')", session="set") == b"777\n"
    assert ask(engine, "SELECT getSetting('max_threads')", session="set") == b"1\n"
    with pytest.raises(QueryFailed):
        ask(engine, "SELECT throwIf(1)", session="set", max_block_size="6")
    assert ask(engine, "SELECT getSetting('max_block_size')", session="set") == b"777\n"
    ask(engine, "CREATE TABLE kept (n UInt8) ENGINE = Memory", session="set")
    ask(engine, "INSERT INTO kept SELECT 1", session="set", max_block_size="9")
    assert ask(engine, "SELECT n, getSetting('max_block_size') FROM kept", session="set") == b"1\t777\n"


def test_what_reaches_outside_stays_refused(engine: ChdbEngine) -> None:
    for sql in ("SET readonly = 0", "SELECT * FROM url('http://127.0.0.1:1/', CSV)", "SET dialect = 'prql'"):
        with pytest.raises(QueryFailed) as failed:
            ask(engine, sql)
        assert failed.value.code == 497
