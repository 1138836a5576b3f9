"""Odd requests get a clear answer: no 500, no traceback, no word of theirs in the log."""

import asyncio
import gzip
import logging
import random
from collections.abc import Iterator
from datetime import timedelta

import pytest

from console.server import SqlServer
from storage.sql.chdb_engine import ChdbEngine
from tests.console.plain_http import LONG_S, Reply, ask, request, serving

FORM = "Content-Type: multipart/form-data; boundary=b"
SELECT = b'Content-Disposition: form-data; name="query"\r\n'
SECRET = "SECRETTOKEN"
NINES = "9" * 5000
PASSWORD = "p\N{SNOWMAN}ssword"


def form(*parts: bytes, end: bytes = b"--b--\r\n") -> bytes:
    return request("/", b"".join(b"--b\r\n" + part for part in parts) + end, FORM)


ODD: dict[str, tuple[int, bytes]] = {
    "NUL in the query": (400, request("/?query=SELECT+1%00", b"")),
    "NUL in the id": (400, request("/?query_id=%00")),
    "NUL in a setting's name": (404, request("/?%00=1")),
    "NUL in the database": (404, request("/?database=%00")),
    "NUL in the format": (404, request("/?default_format=%00")),
    "a line's end in the id": (400, request("/?query_id=a%0d%0aX:1")),
    "a line's end in the format": (404, request("/?default_format=a%0ab")),
    "an id of 8,000 letters": (400, request("/?query_id=" + "a" * 8000)),
    "no UTF-8 in the URL": (400, request("/?param_x=%ff&query=SELECT+{x:String}", b"")),
    "half a character in the URL": (400, request("/?query_id=%ed%a0%80")),
    "raw bytes in the URL": (400, request(b"/?query=SELECT+'\xff'")),
    "a percent sign alone": (400, request("/?query=%zz", b"")),
    "bytes in the user": (400, request("/", b"SELECT 1", b"X-ClickHouse-User: \xff")),
    "bytes in the key": (400, request("/", b"SELECT 1", b"X-ClickHouse-Key: \xff")),
    "bytes in the login": (400, request("/", b"SELECT 1", b"Authorization: Basic \xff")),
    "bytes in the format": (400, request("/", b"SELECT 1", b"X-ClickHouse-Format: \xff")),
    "bytes in the database": (400, request("/", b"SELECT 1", b"X-ClickHouse-Database: \xff")),
    "bytes in the encoding": (400, request("/", b"SELECT 1", b"Content-Encoding: \xff")),
    "bytes in the type": (400, request("/", b"SELECT 1", b"Content-Type: \xff")),
    "a huge revision": (400, request("/?client_protocol_version=" + NINES)),
    "a revision in other digits": (400, request("/?client_protocol_version=%d9%a3")),
    "a huge timeout": (400, request("/?session_id=a&session_timeout=" + NINES)),
    "an infinite timeout": (400, request("/?session_id=a&session_timeout=" + NINES[:400])),
    "a query twice": (400, request("/?query=SELECT&query=2", b"")),
    "a parameter twice": (400, request("/?param_x=1&param_x=2&query=SELECT+{x:UInt8}", b"")),
    "a field twice": (400, form(SELECT + b"\r\nSELECT 1\r\n", SELECT + b"\r\nSELECT 2\r\n")),
    "a parameter that is no number": (400, request("/?param_x=abc&query=SELECT+{x:UInt8}", b"")),
    "a parameter that is not there": (400, request("/?query=SELECT+{y:UInt8}", b"")),
    "junk blocks": (400, request("/?decompress=1", b"junk" * 10)),
    "half a block": (400, request("/?decompress=1", b"j")),
    "junk gzip": (400, request("/", b"junk", "Content-Encoding: gzip")),
    "half of gzip": (400, request("/", gzip.compress(b"SELECT 1")[:-5], "Content-Encoding: gzip")),
    "junk behind gzip": (400, request("/", gzip.compress(b"SELECT 1") + b"junk", "Content-Encoding: gzip")),
    "junk deflate": (400, request("/", b"junk", "Content-Encoding: deflate")),
    "junk zstd": (400, request("/", b"junk", "Content-Encoding: zstd")),
    "junk lz4": (400, request("/", b"junk", "Content-Encoding: lz4")),
    "an unknown encoding": (501, request("/", b"junk", "Content-Encoding: br")),
    "two encodings": (501, request("/", b"junk", "Content-Encoding: gzip, gzip")),
    "a packed form": (501, request("/", b"junk", "Content-Encoding: gzip", FORM)),
    "a form without a boundary": (400, request("/", b"x", "Content-Type: multipart/form-data")),
    "a form with a long boundary": (400, request("/", b"x", FORM + "b" * 200)),
    "a form of junk": (400, request("/", b"junk", FORM)),
    "an empty form": (400, request("/", b"", FORM)),
    "a form that ends early": (400, form(SELECT + b"\r\nSELECT 1\r\n", end=b"")),
    "a field without a name": (400, form(b"Content-Disposition: form-data\r\n\r\nx\r\n")),
    "a field without headers": (400, form(b"\r\nx\r\n")),
    "a field with half a header": (400, form(b"Content-Disposition\r\n\r\nx\r\n")),
    "a field's name of bytes": (400, form(b'Content-Disposition: form-data; name="\xff"\r\n\r\nx\r\n')),
    "a field of bytes": (400, form(SELECT + b"\r\nSELECT '\xff'\r\n")),
    "a field in an unknown charset": (
        400,
        form(SELECT + b"Content-Type: text/plain; charset=nope\r\n\r\nSELECT 1\r\n"),
    ),
    "a form in an unknown charset": (
        404,
        form(
            b'Content-Disposition: form-data; name="_charset_"\r\n\r\nnope\r\n', SELECT + b"\r\nSELECT 1\r\n"
        ),
    ),
    "a field in an odd encoding": (400, form(SELECT + b"Content-Transfer-Encoding: odd\r\n\r\nx\r\n")),
    "a form in a form": (
        400,
        form(b"Content-Type: multipart/mixed; boundary=c\r\n\r\n--c\r\n\r\nx\r\n--c--\r\n"),
    ),
    "a file": (501, form(b'Content-Disposition: form-data; name="t"; filename="x"\r\n\r\n1\r\n')),
    "a form of 2,000 fields": (
        400,
        form(*(b'Content-Disposition: form-data; name="a"\r\n\r\n\r\n' for _ in range(2000))),
    ),
    "a large form": (413, form(SELECT + b"\r\n" + b"x" * 1_500_000 + b"\r\n")),
    "a large statement": (413, request("/", b"x" * 1_500_000)),
    "a length below zero": (400, request("/", b"x", "Content-Length: -1")),
    "a length that is no number": (400, request("/", b"x", "Content-Length: x")),
    "a length beyond all": (400, request("/", b"x", "Content-Length: " + NINES[:40])),
    "a length of many bytes": (413, request("/", b"x", "Content-Length: 99999999999")),
    "two lengths": (400, request("/", b"x", "Content-Length: 1", "Content-Length: 2")),
    "length and chunks": (400, request("/", b"0\r\n\r\n", "Transfer-Encoding: chunked", "Content-Length: 5")),
    "chunks of junk": (400, request("/", b"zz\r\n", "Transfer-Encoding: chunked")),
    "an odd transfer": (400, request("/", b"x", "Transfer-Encoding: odd")),
    "an unknown method": (400, request(method="BREW")),
    "a method in small letters": (400, request(method="post")),
    "PUT": (501, request(method="PUT")),
    "TRACE": (501, request(method="TRACE")),
    "OPTIONS": (501, request(method="OPTIONS")),
    "OPTIONS *": (404, request("*", method="OPTIONS")),
    "HTTP/0.9": (505, b"GET /\r\n\r\n"),
    "HTTP/2": (400, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "HTTP/3": (400, b"GET / HTTP/3.0\r\n\r\n"),
    "TLS": (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    "no HTTP": (400, b"\x00\xff\r\n\r\n"),
    "two hosts": (400, request("/", b"SELECT 1", "Host: localhost")),
    "a long line": (400, request("/?query=" + "x" * 20_000)),
    "a long header": (400, request("/", b"SELECT 1", "X: " + "x" * 20_000)),
    "many headers": (400, request("/", b"SELECT 1", *(f"X{number}: x" for number in range(500)))),
    "an odd expectation": (417, request("/", b"SELECT 1", "Expect: odd")),
    "a host that is none": (400, request("http://[::1/?query=SELECT+1")),
    "two slashes": (404, request("//elsewhere/x")),
    "dots": (404, request("/../../etc")),
    "brackets": (400, request("/", b"SELECT " + b"(" * 4000 + b"1" + b")" * 4000)),
    "UTF-16": (501, request("/", "SELECT 1".encode("utf-16"))),
    "half a character": (501, request("/", b"SELECT '\xed\xa0\x80'")),
    "a type of 900 arrays": (
        200,
        request(
            "/?client_protocol_version=54460&default_format=Native",
            b"SELECT " + b"[" * 900 + b"1" + b"]" * 900,
        ),
    ),
}

SECRETS = (
    request("/", b"SELECT 1", f"Authorization: Bearer {SECRET}\0"),
    request("/", b"SELECT 1", f"Authorization : Bearer {SECRET}"),
    request("/", b"SELECT 1", f"Authorization Bearer {SECRET}"),
    request("/", b"SELECT 1", f"X-ClickHouse-Key: {SECRET}{'x' * 20_000}"),
    request(f"/?password={SECRET}\x01"),
    request(f"/?password={SECRET}{'x' * 20_000}"),
    request(f"/?password={SECRET}%ff"),
    f"{SECRET} / HTTP/1.1\r\n\r\n".encode(),
    request("/", b"SELECT 1", f"Content-Length: {SECRET}"),
    request("/", f"{SECRET}\r\n".encode(), "Transfer-Encoding: chunked"),
    request("/", SECRET.encode(), FORM),
    request("/", SECRET.encode(), "Content-Encoding: gzip"),
)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChdbEngine]:
    engine = ChdbEngine(str(tmp_path_factory.mktemp("store")))
    yield engine
    engine.close()


async def alive(server: SqlServer) -> None:
    reply = await ask(server, request())
    async with asyncio.timeout(LONG_S):
        while not reply.status:  # this machine was slower than a short client_timeout
            reply = await ask(server, request())
    assert reply.body == b"1\n"


def is_clear(reply: Reply) -> bool:
    return reply.status != 500 and bool(reply.status) and b"Traceback" not in reply.body


async def test_odd_requests_get_a_clear_answer(engine: ChdbEngine, caplog: pytest.LogCaptureFixture) -> None:
    async with serving(engine) as server:
        replies = {name: await ask(server, sent) for name, (_, sent) in ODD.items()}
        native = "/?client_protocol_version=54460&default_format=Native"
        bytes_in_a_type = await ask(server, request(native, rb"SELECT CAST(1 AS Enum8('\xff' = 1))"))
        await alive(server)
    assert is_clear(bytes_in_a_type)
    wrong = {name: reply.status for name, reply in replies.items() if reply.status != ODD[name][0]}
    assert wrong == {}
    assert all(reply.body for reply in replies.values())
    assert [record.getMessage() for record in caplog.records if record.levelno > logging.INFO] == []


async def test_logins_in_any_shape_are_refused_not_failed(engine: ChdbEngine) -> None:
    async with serving(engine, password=PASSWORD) as server:
        for login in (
            "Basic !!!",
            "Basic \N{SNOWMAN}",
            "Basic",
            "Basic /////w==",
            "Bearer x",
            "",
            "\N{SNOWMAN}",
        ):
            assert (await ask(server, request("/", b"SELECT 1", f"Authorization: {login}"))).status == 403, (
                login
            )
        assert (await ask(server, request("/?user=%e2%98%83&password=%00"))).status == 403
        assert (await ask(server, request("/", b"SELECT 1", f"X-ClickHouse-Key: {PASSWORD}"))).status == 200


async def test_what_is_malformed_is_not_logged_with_its_secrets(
    engine: ChdbEngine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with serving(engine) as server:
        for sent in SECRETS:
            assert (await ask(server, sent)).status == 400
        await alive(server)
        assert (
            b"meshflow_sql_malformed_requests_total"
            in (await ask(server, request("/metrics", b"", method="GET"))).body
        )
    assert SECRET not in caplog.text


async def test_who_goes_away_within_a_body_is_no_error(
    engine: ChdbEngine, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(engine) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(request("/", b"SEL", "Content-Length: 100"))
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        assert await reader.read() == b""
        await alive(server)
    assert [record.getMessage() for record in caplog.records if record.levelno > logging.INFO] == []


async def test_mutated_requests_end_nothing(engine: ChdbEngine, caplog: pytest.LogCaptureFixture) -> None:
    chance = random.Random(9)
    odd = [sent for _, sent in ODD.values() if len(sent) < 2000]
    async with serving(engine, client_timeout=timedelta(milliseconds=100), min_rate=1 << 30) as server:
        for _ in range(20):
            replies = await asyncio.gather(*(ask(server, mutated(chance, odd)) for _ in range(20)))
            assert all(is_clear(reply) or not reply.status for reply in replies)
            await alive(server)
    assert [record.getMessage() for record in caplog.records if record.levelno > logging.INFO] == []


def mutated(chance: random.Random, sent: list[bytes]) -> bytes:
    data = bytearray(chance.choice(sent))
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(data))
        match chance.randrange(4):
            case 0:
                data[at] = chance.randrange(256)
            case 1:
                del data[at : at + chance.randint(1, 8)]
            case 2:
                data[at:at] = chance.choice(sent)[: chance.randint(1, 200)]
            case _:
                data[at:at] = bytes([data[at]]) * chance.choice((1, 10, 9000))
        data = data or bytearray(b"x")
    return bytes(data)
