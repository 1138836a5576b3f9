"""`meshflow store` as ClickHouse's own clients meet it: inserts, refusals, several at once, SIGTERM, kill
-9.
"""

import base64
import http.client
import json
import shutil
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import clickhouse_connect
import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError, DatabaseError, OperationalError

from tests.support.store_server import StoreServer
from tests.support.up import LONG_S, eventually, run_meshflow

COMPRESSIONS = ("lz4", "zstd", "gzip", "")
CREATE = (
    "CREATE TABLE {} (n UInt64, name LowCardinality(String), labels Map(String, String))"
    " ENGINE = MergeTree ORDER BY n SETTINGS non_replicated_deduplication_window = 100"
)
COLUMNS = ["n", "name", "labels"]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[StoreServer]:
    server = StoreServer(tmp_path)
    try:
        yield server.start()
    finally:
        server.kill()


def connect(server: StoreServer, **options: Any) -> Client:
    return clickhouse_connect.get_client(host="127.0.0.1", port=server.port, query_retries=0, **options)


def rows(count: int, start: int = 0) -> list[list[Any]]:
    return [[n, f"name {n % 7}", {"key;\n": "value\0"}] for n in range(start, start + count)]


def send(
    server: StoreServer,
    body: bytes | None = None,
    *,
    headers: dict[str, str] | None = None,
    **parameters: str,
) -> tuple[int, str, str]:
    """Status, ClickHouse's error code, and the answer."""
    url = f"http://127.0.0.1:{server.port}/?{urllib.parse.urlencode(parameters)}"
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url, body, headers or {}), timeout=LONG_S
        ) as response:
            return response.status, "", response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers.get("X-ClickHouse-Exception-Code", ""), error.read().decode()


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_native_inserts_of_the_ordinary_client(store_server: StoreServer, compression: str) -> None:
    table = f"native_{compression or 'plain'}"
    with closing(connect(store_server, compress=compression or False)) as client:
        client.command(CREATE.format(table))
        for _ in range(2):
            settings = {"insert_deduplication_token": "one", "async_insert": 1, "wait_for_async_insert": 1}
            summary = client.insert(table, rows(70_000), column_names=COLUMNS, settings=settings)
            assert int(summary.written_rows) == 70_000
        assert client.query(f"SELECT count(), uniqExact(n), any(labels) FROM {table}").result_rows == [
            (70_000, 70_000, {"key;\n": "value\0"})
        ]
        client.insert(table, rows(10), column_names=COLUMNS, settings={"insert_deduplication_token": "two"})
        assert client.command(f"SELECT count() FROM {table}") == 70_010
        client.command(f"INSERT INTO {table} (n, name) VALUES", data="(1, 'a;b'), (2, 'c')")
        assert client.query(
            f"SELECT name FROM {table} WHERE name IN ('a;b', 'c') ORDER BY name"
        ).result_rows == [("a;b",), ("c",)]
        with pytest.raises(DatabaseError) as failed:
            client.insert(
                "nowhere",
                rows(1),
                column_names=COLUMNS,
                column_type_names=["UInt64", "String", "Map(String, String)"],
            )
        assert failed.value.code == 60
        client.command(f"DROP TABLE {table}")


def test_what_is_wrong_is_refused_and_stores_nothing(server: StoreServer) -> None:
    with closing(connect(server)) as client:
        client.command(CREATE.format("calls"))
        insert = "INSERT INTO calls (n) FORMAT CSV"
        assert send(
            server, b"\x04\x22M\x18 this is no frame", headers={"Content-Encoding": "lz4"}, query=insert
        )[:2] == (400, "271")
        assert send(server, b"1\n", headers={"Content-Encoding": "snappy"}, query=insert)[:2] == (501, "48")
        assert send(server, b"not a number\n", query=insert)[:2] == (400, "117")
        assert send(server, b"1\n", query="INSERT INTO calls (nothing) FORMAT CSV")[1] == "16"
        assert send(server, None, query="TRUNCATE TABLE calls")[:2] == (403, "497"), "GET changes nothing"
        assert send(server, b"", query="SYSTEM SHUTDOWN")[:2] == (403, "497")
        assert client.command("SELECT count() FROM calls") == 0
        assert send(server, b"1\n2\n", query=insert)[0] == 200
        assert client.command("SELECT count() FROM calls") == 2
    assert list((server.data / "rows").iterdir()) == []


def test_rows_that_do_not_all_arrive_are_not_stored(server: StoreServer) -> None:
    with closing(connect(server)) as client:
        client.command(CREATE.format("calls"))
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=LONG_S)
        connection.putrequest(
            "POST", "/?" + urllib.parse.urlencode({"query": "INSERT INTO calls (n) FORMAT CSV"})
        )
        connection.putheader("Transfer-Encoding", "chunked")
        connection.endheaders()
        rows = b"1\n" * 800_000  # more than a statement may have
        connection.send(b"%x\r\n%s\r\n" % (len(rows), rows))
        try:
            eventually(
                lambda: len(list((server.data / "rows").iterdir())) == 1, "the rows that came are in a file"
            )
        finally:
            connection.close()
        eventually(lambda: list((server.data / "rows").iterdir()) == [], "the file is removed")
        assert client.command("SELECT count() FROM calls") == 0


def test_limits_of_size(tmp_path: Path) -> None:
    server = StoreServer(tmp_path, '[console]\nmax_insert_size = "100KiB"\nmax_request_size = "10KiB"\n')
    try:
        server.start()
        with closing(connect(server)) as client:
            client.command(CREATE.format("calls"))
            status, code, text = send(server, b"1\n" * 100_000, query="INSERT INTO calls (n) FORMAT CSV")
            assert (status, code) == (413, "229")
            assert "console.max_insert_size" in text
            assert send(server, b"SELECT '" + b"x" * 20_000 + b"'")[:2] == (413, "229")
            assert send(server, b"1\n" * 20_000, query="INSERT INTO calls (n) FORMAT CSV")[0] == 200
            assert client.command("SELECT count() FROM calls") == 20_000
    finally:
        server.kill()


def test_a_store_that_is_not_writable_only_reads(tmp_path: Path) -> None:
    server = StoreServer(tmp_path, "", "--host", "127.0.0.1")
    try:
        server.start()
        assert send(server, b"SELECT 1")[2] == "1\n"
        assert send(server, b"CREATE TABLE t (n UInt8) ENGINE = Memory")[:2] == (403, "497")
        assert send(server, b"1\n", query="INSERT INTO t FORMAT CSV")[0] >= 400
        assert not (server.data / "rows").exists()
    finally:
        server.kill()


def test_user_and_password(tmp_path: Path) -> None:
    server = StoreServer(tmp_path, '[console]\nusername = "mesh"\npassword = "open: sesame"\n')
    try:
        server.start()
        basic = {"Authorization": "Basic " + base64.b64encode(b"mesh:open: sesame").decode()}
        for headers in (basic, {"X-ClickHouse-User": "mesh", "X-ClickHouse-Key": "open: sesame"}):
            assert send(server, b"SELECT 1", headers=headers)[0] == 200
        assert send(server, b"SELECT 1", user="mesh", password="open: sesame")[0] == 200
        wrong: tuple[dict[str, str], ...] = (
            {},
            {"X-ClickHouse-User": "mesh"},
            {"X-ClickHouse-User": "default", "X-ClickHouse-Key": "open: sesame"},
            {"Authorization": "Basic nonsense"},
            {"Authorization": "Bearer x"},
        )
        for headers in wrong:
            status, code, text = send(server, b"SELECT 1", headers=headers)
            assert (status, code) == (403, "516")
            assert "Authentication failed" in text
            assert "sesame" not in text
        with closing(connect(server, username="mesh", password="open: sesame")) as client:
            assert client.command("SELECT 1") == 1
        with pytest.raises(DatabaseError, match="Authentication failed"):
            connect(server, username="mesh", password="sesame")
        assert (
            run_meshflow("--config", str(server.config), "query", "SELECT 1 AS n", "--data", str(server.data))
            == "n\n1\n"
        )
        assert "sesame" not in server.log()
    finally:
        server.kill()


def test_several_clients_at_once(server: StoreServer) -> None:
    with closing(connect(server)) as client:
        client.command(CREATE.format("calls"))
    failures: list[Exception] = []

    def work(number: int) -> None:
        try:
            with closing(connect(server)) as own:
                for block in range(6):
                    token = f"{(number // 2)}-{block}"  # two clients send each block
                    own.insert(
                        "calls",
                        rows(500, 10_000 * (number // 2) + 500 * block),
                        column_names=COLUMNS,
                        settings={"insert_deduplication_token": token},
                    )
                    own.query("SELECT count(), sum(n) FROM calls")
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    with closing(connect(server)) as client:
        assert client.query("SELECT count(), uniqExact(n) FROM calls").result_rows == [(9_000, 9_000)]


def in_thread(work: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    results: list[Any] = []

    def run() -> None:
        try:
            results.append(work())
        except (ClickHouseError, OSError) as error:
            results.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, results


def in_session(server: StoreServer, session: str, statement: bytes) -> tuple[int, str, str]:
    while (answer := send(server, statement, max_execution_time="300", session_id=session))[1] == "373":
        pass  # is_busy has the session
    return answer


def is_busy(server: StoreServer, session: str) -> bool:
    return send(server, b"SELECT 1", session_id=session)[1] == "373"


def test_sigterm_finishes_what_writes_and_ends_what_reads(server: StoreServer) -> None:
    with closing(connect(server)) as client:
        client.command(CREATE.format("calls"))
        select = b"SELECT sum(sipHash64(number)) FROM numbers(1e13)"
        reading, read = in_thread(lambda: in_session(server, "reading", select))
        eventually(lambda: is_busy(server, "reading"), "the query runs")
        insert = b"INSERT INTO calls (n) SELECT number FROM numbers(20) WHERE sleepEachRow(1) = 0 SETTINGS max_block_size = 1"
        writing, written = in_thread(lambda: in_session(server, "writing", insert))
        eventually(lambda: is_busy(server, "writing"), "the insert is taken")
        # It is judged first, by questions that a stop ends as it ends all reading: so are these.
        for number in range(20):
            assert send(server, f"SELECT count() + {number} FROM calls".encode())[0] == 200
        assert is_busy(server, "writing")
    assert server.stop() == 0
    writing.join()
    reading.join()
    assert written == [(200, "", "")]
    assert not isinstance(read[0], tuple) or read[0][0] != 200
    server.start()
    with closing(connect(server)) as client:
        assert client.command("SELECT count() FROM calls") == 20


def test_kill_9_between_a_name_and_its_part(server: StoreServer) -> None:
    """The folder is put into that state, as a timed kill hits it too rarely."""
    with closing(connect(server)) as client:
        client.command(CREATE.format("calls"))
        client.command("SYSTEM STOP MERGES calls")
        for block in range(3):
            client.insert(
                "calls",
                rows(10, 10 * block),
                column_names=COLUMNS,
                settings={"insert_deduplication_token": f"{block}"},
            )
        path = client.command(
            "SELECT path FROM system.parts WHERE table = 'calls' AND active ORDER BY max_block_number DESC LIMIT 1"
        )
    server.kill()
    part = Path(*Path(str(path)).parts[-4:])  # the engine names its folder by a descriptor of its own
    (folder,) = server.data.rglob(str(part))
    shutil.rmtree(folder)
    server.start()
    with closing(connect(server)) as client:
        assert client.command("SELECT count() FROM calls") == 20
        for block in range(3):
            client.insert(
                "calls",
                rows(10, 10 * block),
                column_names=COLUMNS,
                settings={"insert_deduplication_token": f"{block}"},
            )
        assert client.query("SELECT count(), uniqExact(n) FROM calls").result_rows == [(30, 30)]


def test_rows_that_a_killed_process_left_are_removed(server: StoreServer) -> None:
    server.kill()
    (server.data / "rows" / "left.rows").write_bytes(b"rows")
    with pytest.raises(OperationalError):
        connect(server)
    server.start()
    assert list((server.data / "rows").iterdir()) == []


def test_health_and_metrics(store_server: StoreServer) -> None:
    for path, text in (
        ("/ping", "Ok.\n"),
        ("/replicas_status", "Ok.\n"),
        ("/metrics", "meshflow_sql_queries_total"),
    ):
        with urllib.request.urlopen(
            f"http://127.0.0.1:{store_server.port}{path}", timeout=LONG_S
        ) as response:
            assert text in response.read().decode()
    ports = json.loads((store_server.data / "ports.json").read_text())
    assert (ports["host"], ports["sql"], ports["pid"]) == ("127.0.0.1", store_server.port, store_server.pid)
