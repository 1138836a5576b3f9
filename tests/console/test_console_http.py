"""The SQL port as its clients see it: clickhouse-connect's own HTTP client, and plain HTTP."""

import asyncio
import gzip
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import closing
from datetime import timedelta
from typing import Any

import clickhouse_connect
import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError

from console.server import SqlServer
from console.settings import ConsoleSettings
from schemas.errors import AddressInUse
from schemas.sql import Limits
from storage import embedded
from storage.sql.chdb_engine import ChdbEngine

SETTINGS = ConsoleSettings(
    sql_port=0,
    max_request_size=4096,
    max_queries=1,
    max_waiting_queries=1,
    max_query_time=timedelta(minutes=5),
)

LIMITS = Limits(time_s=120, memory_bytes=256 << 20, threads=1, result_bytes=4 << 20)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def engine(folder: str) -> Iterator[ChdbEngine]:
    connection = embedded.connect(folder)
    connection.query(
        "CREATE TABLE calls (n UInt64, name LowCardinality(String), at DateTime64(9, 'UTC')) ENGINE = MergeTree ORDER BY n"
    )
    connection.query(
        "INSERT INTO calls SELECT number, toString(number % 3), toDateTime64(number, 9) FROM numbers(100000)"
    )
    engine = ChdbEngine(folder)
    connection.close()
    yield engine
    engine.close()


@pytest.fixture
async def server(engine: ChdbEngine) -> AsyncIterator[SqlServer]:
    server = SqlServer(SETTINGS, engine)
    await server.start()
    yield server
    await server.stop()


class Reply:
    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body


def send(
    server: SqlServer,
    path: str = "/",
    body: bytes | None = None,
    *,
    method: str | None = None,
    **headers: str,
) -> Reply:
    request = urllib.request.Request(
        f"http://127.0.0.1:{server.port}{path}",
        body,
        {key.replace("_", "-"): value for key, value in headers.items()},
        method=method,
    )
    try:
        with urllib.request.urlopen(request) as response:
            return Reply(response.status, dict(response.headers), response.read())
    except urllib.error.HTTPError as error:
        return Reply(error.code, dict(error.headers), error.read())


async def fetch(server: SqlServer, path: str = "/", body: bytes | None = None, **more: Any) -> Reply:
    return await asyncio.to_thread(send, server, path, body, **more)


def url(**parameters: str | int) -> str:
    return "/?" + urllib.parse.urlencode(parameters)


async def with_client(server: SqlServer, use: Callable[[Client], Any]) -> Any:
    def work() -> Any:
        with clickhouse_connect.get_client(
            host="127.0.0.1", port=server.port, autogenerate_session_id=False
        ) as client:
            return use(client)

    return await asyncio.to_thread(work)


async def test_clickhouse_connect_connects_and_reads(server: SqlServer) -> None:
    def use(client: Client) -> tuple[Any, ...]:
        rows = client.query("SELECT n, name, at FROM calls WHERE n IN (1, 99999) ORDER BY n")
        all_rows = client.query("SELECT n FROM calls")
        frame = client.query_df("SELECT name, count() AS calls FROM calls GROUP BY name ORDER BY name")
        empty = client.query("SELECT n, name FROM calls WHERE n > 1e6")
        return (
            rows.result_rows,
            len(all_rows.result_rows),
            frame["calls"].tolist(),
            empty.column_names,
            client.command("SELECT count() FROM calls"),
        )

    rows, count, by_name, empty_columns, counted = await with_client(server, use)
    assert [(row[0], row[1]) for row in rows] == [(1, "1"), (99999, "0")]
    assert rows[1][2].year == 1970
    assert (count, by_name, empty_columns, counted) == (
        100_000,
        [33334, 33333, 33333],
        ("n", "name"),
        100_000,
    )


async def test_clickhouse_connect_sends_parameters_and_settings(server: SqlServer) -> None:
    def use(client: Client) -> tuple[Any, ...]:
        odd = "it's\ta \\ tab\n\N{SNOWMAN}"
        bound = client.query(
            "SELECT {text:String}, {list:Array(UInt8)}", parameters={"text": odd, "list": [1, 2]}
        ).result_rows
        setting = client.query(
            "SELECT getSetting('max_block_size')", settings={"max_block_size": 777}
        ).result_rows
        return odd, bound, setting

    odd, bound, setting = await with_client(server, use)
    assert bound == [(odd, [1, 2])]
    assert setting == [(777,)]


async def test_clickhouse_connect_reads_errors(server: SqlServer) -> None:
    def use(client: Client) -> None:
        for sql, code in (("SELECT * FROM nowhere", 60), ("DROP TABLE calls", 497), ("SELEC 1", 62)):
            with pytest.raises(DatabaseError) as failed:
                client.query(sql)
            assert failed.value.code == code
        with pytest.raises(DatabaseError):
            client.insert(
                "calls",
                [[1, "a", 0]],
                column_names=["n", "name", "at"],
                column_type_names=["UInt64", "String", "DateTime64(9)"],
            )

    await with_client(server, use)


async def test_query_comes_by_parameter_body_or_both(server: SqlServer) -> None:
    assert (await fetch(server, url(query="SELECT 1"))).body == b"1\n"
    assert (await fetch(server, "/", b"SELECT 2")).body == b"2\n"
    assert (await fetch(server, url(query="SELECT"), b"3")).body == b"3\n"
    assert (await fetch(server, "/", gzip.compress(b"SELECT 4"), Content_Encoding="gzip")).body == b"4\n"
    assert (await fetch(server, url(query="SELECT {n:UInt8}", param_n=5))).body == b"5\n"
    assert (await fetch(server, url(query="SELECT currentDatabase()", database="system"))).body == b"system\n"


async def test_headers_say_what_was_answered(server: SqlServer) -> None:
    reply = await fetch(
        server, url(query="SELECT n FROM calls LIMIT 1", default_format="JSONEachRow", query_id="mine")
    )
    assert reply.status == 200
    assert json.loads(reply.body) == {"n": "0"} or json.loads(reply.body) == {"n": 0}
    assert reply.headers["X-ClickHouse-Format"] == "JSONEachRow"
    assert reply.headers["X-ClickHouse-Query-Id"] == "mine"
    assert reply.headers["X-ClickHouse-Timezone"]
    assert reply.headers["X-ClickHouse-Server-Display-Name"]
    assert int(json.loads(reply.headers["X-ClickHouse-Summary"])["read_rows"]) > 0
    assert reply.headers["Content-Type"] == "application/x-ndjson; charset=UTF-8"
    own = await fetch(server, url(query="SELECT 1 FORMAT CSV", default_format="JSON"))
    assert (own.headers["X-ClickHouse-Format"], own.headers["Content-Type"]) == (
        "CSV",
        "text/csv; charset=UTF-8; header=absent",
    )


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("SELEC 1", 400, 62),
        ("SELECT * FROM nowhere", 404, 60),
        ("SELECT nothing", 404, 47),
        ("SELECT 1 FORMAT Nothing", 404, 73),
        ("DROP TABLE calls", 403, 497),
        ("SELECT file('/etc/passwd')", 403, 497),
        ("SELECT throwIf(1)", 500, 395),
    ],
)
async def test_errors_have_clickhouse_codes_and_status(
    server: SqlServer, query: str, status: int, code: int
) -> None:
    reply = await fetch(server, url(query=query))
    assert (reply.status, reply.headers["X-ClickHouse-Exception-Code"]) == (status, str(code))
    assert reply.body.startswith(f"Code: {code}. DB::Exception: ".encode())


async def test_a_query_may_ask_for_less_time_than_the_limit(server: SqlServer) -> None:
    reply = await fetch(
        server, url(query="SELECT sum(sipHash64(number)) FROM numbers(1e13)", max_execution_time="0.2")
    )
    assert (reply.status, reply.headers["X-ClickHouse-Exception-Code"]) == (408, "159")


async def test_answers_are_compressed_when_both_sides_want_it(server: SqlServer) -> None:
    query = url(query="SELECT n FROM calls LIMIT 10000", enable_http_compression=1)
    packed = await fetch(server, query, Accept_Encoding="gzip")
    plain = await fetch(server, query)
    assert packed.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(packed.body) == plain.body
    assert "Content-Encoding" not in plain.headers


async def test_what_is_too_much_is_refused(server: SqlServer, engine: ChdbEngine) -> None:
    assert (await fetch(server, "/", b"SELECT '" + b"x" * 5000 + b"'")).status == 413
    slow = [
        asyncio.create_task(fetch(server, url(query="SELECT sum(sipHash64(number)) FROM numbers(1e13)")))
        for _ in range(2)
    ]
    while server.under_way < 2:  # noqa: ASYNC110 - the server has no event for it
        await asyncio.sleep(0.01)
    refused = await fetch(server, url(query="SELECT 1"))
    assert refused.headers["X-ClickHouse-Exception-Code"] == "202"
    while not all(task.done() for task in slow):  # one runs, one waits for its turn
        await asyncio.to_thread(engine.interrupt)
        await asyncio.sleep(0.01)
    assert [task.result().status == 200 for task in slow] == [False, False]
    assert (await fetch(server, url(query="SELECT 1"))).body == b"1\n"


async def test_health_and_metrics(server: SqlServer) -> None:
    for path in ("/", "/ping", "/replicas_status"):
        assert (await fetch(server, path)).body == b"Ok.\n"
    before = await fetch(server, "/metrics")
    assert b"# HELP meshflow_sql_queries_total" in before.body
    assert before.headers["Content-Type"].startswith("text/plain")
    assert (await fetch(server, "/elsewhere")).status == 404
    assert (await fetch(server, "/", method="DELETE")).status == 501


async def test_a_taken_port_is_a_clear_error(server: SqlServer, engine: ChdbEngine) -> None:
    second = SqlServer(SETTINGS.model_copy(update={"sql_port": server.port}), engine)
    with pytest.raises(AddressInUse, match=f"127.0.0.1:{server.port}"):
        await second.start()
    await second.stop()


async def test_stopping_ends_what_runs(engine: ChdbEngine, folder: str) -> None:
    server = SqlServer(SETTINGS, engine)
    await server.start()
    slow = asyncio.create_task(fetch(server, url(query="SELECT sum(sipHash64(number)) FROM numbers(1e13)")))
    running = (
        "SELECT query FROM system.processes WHERE query LIKE '%OUTFILE%' AND query NOT LIKE '%processes%'"
    )
    with closing(embedded.connect(folder)) as watching:
        while b"sipHash64" not in watching.query(running).bytes():  # noqa: ASYNC110 - the engine has no event for it
            await asyncio.sleep(0.01)
    await asyncio.wait_for(server.stop(), 90)
    with pytest.raises((AssertionError, ConnectionError, urllib.error.URLError)):
        assert (await slow).status == 200
