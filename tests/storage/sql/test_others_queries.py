"""No statement of a port ends, holds up or shows a query of someone else, on the engine with such a query."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest

from schemas.sql import Query, Session
from storage import embedded
from tests.storage.sql.forbidden import BLANKS, Place, place
from tests.support.up import eventually

KILLS = (
    "KILL QUERY WHERE 1",
    "KILL QUERY WHERE 1 SYNC",
    "KILL QUERY WHERE 1 ASYNC",
    "KILL QUERY WHERE 1 TEST",
    "KILL QUERY WHERE query_id IN (SELECT query_id FROM system.processes) SYNC",
    "KILL QUERY WHERE user = currentUser() FORMAT JSON",
    "KILL QUERY ON CLUSTER default WHERE 1",
    "KILL MUTATION WHERE 1",
    "KILL MUTATION WHERE table = 'calls' SYNC",
    "KILL TRANSACTION WHERE 1",
    "KILL PART_MOVE_TO_SHARD WHERE 1",
    "SELECT 1; KILL QUERY WHERE 1",
    "EXPLAIN KILL QUERY WHERE 1",
    "PARALLEL WITH KILL QUERY WHERE 1 PARALLEL WITH KILL QUERY WHERE 1",
    "EXECUTE AS owner KILL QUERY WHERE 1",
)
HOLDS = (
    "SYSTEM SHUTDOWN",
    "SYSTEM KILL",
    "SYSTEM SUSPEND FOR 9 SECOND",
    "SYSTEM STOP MERGES",
    "SYSTEM STOP TTL MERGES",
    "SYSTEM STOP MOVES",
    "SYSTEM STOP FETCHES",
    "SYSTEM STOP VIEWS",
    "SYSTEM STOP VIEW calls",
    "SYSTEM CANCEL VIEW calls",
    "SYSTEM STOP LISTEN HTTP",
    "SYSTEM STOP DISTRIBUTED SENDS",
    "SYSTEM STOP REPLICATED SENDS",
    "SYSTEM STOP REPLICATION QUEUES",
    "SYSTEM STOP PULLING REPLICATION LOG",
    "SYSTEM STOP CLEANUP",
    "SYSTEM RESTART REPLICAS",
    "SYSTEM RESTORE REPLICA calls",
    "SYSTEM RELOAD CONFIG",
    "SYSTEM RELOAD DICTIONARIES",
    "SYSTEM ENABLE FAILPOINT anything",
    "SYSTEM UNFREEZE WITH NAME 'x'",
    "SYSTEM DROP MARK CACHE",
    "SYSTEM DROP QUERY CACHE",
    "SYSTEM DROP UNCOMPRESSED CACHE",
    "SYSTEM JEMALLOC PURGE",
    "SYSTEM START THREAD FUZZER",
    "DETACH DATABASE default",
    "DETACH TABLE calls",
    "MOVE USER default TO local_directory",
    "SET ROLE owner",
    "SET DEFAULT ROLE owner TO default",
    "SET TRANSACTION SNAPSHOT 1",
    "BEGIN TRANSACTION",
    "ROLLBACK",
)
"""Each stops, holds up or slows down work of others, or takes the rights to do so."""
SHOWN = (
    "SHOW PROCESSLIST",
    "SELECT query FROM system.processes",
    "SELECT * FROM merge('system', 'processes')",
    "SELECT * FROM system.query_log",
    "SELECT * FROM system.user_processes",
)
_ROWS = 40
_SLOW = f"SELECT sum(sleepEachRow(0.05)), count() FROM numbers({_ROWS}) SETTINGS max_block_size = 1"


@pytest.fixture(scope="module", params=[False, True], ids=["reading", "writing"])
def here(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with place(tmp_path_factory.mktemp("others"), writable=request.param) as opened:
        yield opened


@contextmanager
def someone_elses_query(store: Path) -> Iterator[Callable[[], str]]:
    """Runs for two seconds and more; a function waits for its answer, or its error."""
    said: list[str] = []
    theirs, watching = embedded.connect_as(store, embedded.READER), embedded.connect_again(store)

    def run() -> None:
        try:
            said.append(theirs.query(_SLOW, "TSVRaw").bytes().decode())
        except RuntimeError as error:
            said.append(str(error))

    thread = threading.Thread(target=run)

    def answer() -> str:
        thread.join()
        return said[0]

    thread.start()
    try:
        count = "SELECT count() FROM system.processes WHERE query LIKE 'SELECT sum(sleepEachRow%'"
        eventually(lambda: watching.query(count, "TSVRaw").bytes() == b"1\n", "the query runs", every_s=0.01)
        yield answer
    finally:
        thread.join()
        theirs.close()
        watching.close()


def test_no_statement_ends_or_holds_up_the_query_of_another(here: Place) -> None:
    random = Random(9)
    session = Session("mine", 60, must_exist=False)
    with someone_elses_query(here.secret.parent / "store") as answer:
        for sql in (*KILLS, *HOLDS, *SHOWN):
            here.refuse(Query(sql))
            here.refuse(Query(sql.lower().replace(" ", random.choice(BLANKS), 2), session=session))
        assert answer() == f"0\t{_ROWS}\n"


def test_without_the_guard_it_would_be_ended(here: Place) -> None:
    store = here.secret.parent / "store"
    killer = embedded.connect_as(store, embedded.READER)
    try:
        with someone_elses_query(store) as answer:
            killer.query("KILL QUERY WHERE query LIKE 'SELECT sum(sleepEachRow%' ASYNC", "TSVRaw")
            assert "QUERY_WAS_CANCELLED" in answer()
    finally:
        killer.close()
