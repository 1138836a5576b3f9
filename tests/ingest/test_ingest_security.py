"""Tokens and client certificates: who is let in, how the others are answered, and files that change while
the receiver runs.
"""

import asyncio
import contextlib
import gzip
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import aiohttp
import grpc
import pytest
import trustme
from google.rpc.status_pb2 import Status
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import REGISTRY

from ingest.http.encoding import PROTOBUF
from ingest.security import (
    NO_TOKEN,
    NOT_BEARER,
    UNKNOWN_TOKEN,
    CredentialsInvalid,
    authorize,
    exposure,
    parse_tokens,
    read_credentials,
)
from ingest.server import IngestServer
from ingest.settings import AuthSettings, IngestSettings, TlsSettings
from tests.support.memory_log import MemoryLog
from tests.support.pki import NEXT_TOKEN, TOKEN, Pki
from tests.support.receiving import PARTITIONS, Serve, export, grpc_client, span_ids, traces

LONG_S = 60.0
GZIP_BOMB = gzip.compress(bytes(64 << 20))


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    return Pki(tmp_path)


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),)


async def refused(
    channel: grpc.aio.Channel, request: bytes, *metadata: tuple[str, str]
) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await export(channel, request, metadata=metadata or None)
    return error.value


async def post(
    server: IngestServer,
    body: bytes,
    headers: Mapping[str, str] | None = None,
    context: ssl.SSLContext | None = None,
) -> aiohttp.ClientResponse:
    """One request on a connection of its own; the answer, read."""
    url = f"http{'s' if context else ''}://127.0.0.1:{server.http_port}/v1/traces"
    headers = {"Content-Type": PROTOBUF, **(headers or {})}
    async with (
        aiohttp.ClientSession() as session,
        session.post(url, data=body, headers=headers, ssl=context or True) as response,
    ):
        await response.read()
        return response


def trusting(ca: trustme.CA, client_ca: trustme.CA | None = None) -> ssl.SSLContext:
    """A client's TLS, with a certificate of ``client_ca`` where there is one."""
    context = ssl.create_default_context()
    ca.configure_trust(context)
    if client_ca is not None:
        client_ca.issue_cert("sidecar.example").configure_cert(context)
    return context


def unauthenticated(protocol: str, reason: str) -> float:
    return (
        REGISTRY.get_sample_value(
            "meshflow_ingest_unauthenticated_total", {"protocol": protocol, "reason": reason}
        )
        or 0
    )


@pytest.mark.parametrize(
    ("authorization", "reason"),
    [
        (None, NO_TOKEN),
        (b"", NOT_BEARER),
        (b"Basic dXNlcjpwYXNzd29yZA==", NOT_BEARER),
        (b"first-of-the-two-tokens", NOT_BEARER),
        (b"Bearer", UNKNOWN_TOKEN),
        (b"Bearer ", UNKNOWN_TOKEN),
        (b"Bearer first-of-the-two-token", UNKNOWN_TOKEN),
        (b"Bearer first-of-the-two-tokens1", UNKNOWN_TOKEN),
        (b"Bearer first-of-the-two-tokens second-of-the-two-tokens", UNKNOWN_TOKEN),
        (b"Bearer \xff\xfe", UNKNOWN_TOKEN),
        (b"Bearer first-of-the-two-tokens", None),
        (b"bearer   second-of-the-two-tokens ", None),
    ],
)
def test_who_is_let_in(authorization: bytes | None, reason: str | None) -> None:
    tokens = (b"first-of-the-two-tokens", b"second-of-the-two-tokens")
    assert authorize(authorization, tokens) == reason
    assert authorize(authorization, None) is None, "where no token is asked for"


def test_a_file_of_tokens() -> None:
    text = b"# sidecars\r\n\n  0123456789abcdef  the old one\r\nfedcba9876543210\n\t# no more"
    assert parse_tokens(text, "tokens") == (b"0123456789abcdef", b"fedcba9876543210")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "tokens has no token"),
        (b"# only words\n", "tokens has no token"),
        (b"0123456789abcdef\nhunter2 bob\n", "tokens, line 2: a token needs 16 characters"),
        ("0123456789abcdef-\N{SNOWMAN}".encode(), "tokens, line 1: a token is of visible ASCII"),
    ],
)
def test_what_is_wrong_with_a_file_of_tokens_is_said_without_showing_it(text: bytes, message: str) -> None:
    with pytest.raises(CredentialsInvalid, match=message) as error:
        parse_tokens(text, "tokens")
    assert "hunter2" not in str(error.value)
    assert "0123456789" not in str(error.value)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, None),
        ({"host": "127.0.0.2"}, None),
        ({"host": "::1"}, None),
        ({"host": "0.0.0.0"}, "without TLS: anybody who reaches it may write"),
        ({"host": "::", "auth": {"tokens": "t"}}, "without TLS: tokens and telemetry can be read on the way"),
        (
            {"host": "10.0.0.1", "tls": {"certificate": "c", "key": "k"}},
            "for anybody: set ingest.auth.tokens",
        ),
        ({"host": "10.0.0.1", "tls": {"certificate": "c", "key": "k"}, "auth": {"tokens": "t"}}, None),
        ({"host": "10.0.0.1", "tls": {"certificate": "c", "key": "k", "client_ca": "a"}}, None),
    ],
)
def test_an_open_receiver_is_logged(settings: dict[str, object], said: str | None) -> None:
    warning = exposure(IngestSettings.model_validate(settings))
    assert warning == said if said is None else said in (warning or "")


@pytest.mark.parametrize("tls", [{"certificate": "c"}, {"key": "k"}, {"client_ca": "a"}])
def test_half_of_tls_is_an_error(tls: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="certificate and key"):
        TlsSettings(**tls)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("tls.crt", b"no PEM", "tls.crt and .*tls.key are no certificate and its key in PEM"),
        ("tls.key", trustme.CA().private_key_pem.bytes(), "are no certificate and its key in PEM"),
        ("client_ca.crt", b"", "client_ca.crt has no certificates in PEM"),
        ("tls.key", None, "tls.key cannot be read: No such file"),
        ("tokens", None, "tokens cannot be read: No such file"),
    ],
)
async def test_a_receiver_with_a_broken_file_does_not_start(
    pki: Pki, name: str, content: bytes | None, message: str
) -> None:
    path = pki.folder / name
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(CredentialsInvalid, match=message) as error:
        IngestServer(
            IngestSettings(grpc_port=0, http_port=0, **pki.settings(mtls=True, tokens=True)),
            MemoryLog(),
            PARTITIONS,
        )
    assert "PRIVATE" not in str(error.value)


def test_nothing_secret_is_shown(pki: Pki) -> None:
    settings = IngestSettings(**pki.settings(mtls=True, tokens=True))
    shown = repr(read_credentials(settings.tls, settings.auth))
    assert TOKEN not in shown
    assert "PRIVATE" not in shown
    assert read_credentials(TlsSettings(), AuthSettings()).tokens is None


async def test_grpc_asks_for_a_token(serve: Serve, pki: Pki) -> None:
    log = MemoryLog()
    pki.set_tokens(TOKEN, NEXT_TOKEN)
    before = {reason: unauthenticated("grpc", reason) for reason in (NO_TOKEN, NOT_BEARER, UNKNOWN_TOKEN)}
    async with serve(log, **pki.settings(tokens=True)) as server, grpc_client(server) as channel:
        for metadata in ((), (("authorization", f"Basic {TOKEN}"),), bearer(TOKEN[:-1])):
            error = await refused(channel, traces(0, 1), *metadata)
            assert error.code() is grpc.StatusCode.UNAUTHENTICATED
            assert "token" in (error.details() or "").lower()
        assert await export(channel, traces(1, 1), metadata=bearer(TOKEN)) == b""
        assert await export(channel, traces(2, 1), metadata=bearer(NEXT_TOKEN)) == b""
        answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        assert answer.status == health_pb2.HealthCheckResponse.SERVING, (
            "health is open: those who ask have no tokens"
        )
    assert sorted(log.span_ids()) == span_ids(1, 2)
    assert {
        reason: unauthenticated("grpc", reason) - count for reason, count in before.items()
    } == dict.fromkeys(before, 1)


async def test_http_asks_for_a_token(serve: Serve, pki: Pki) -> None:
    log = MemoryLog()
    before = {reason: unauthenticated("http", reason) for reason in (NO_TOKEN, NOT_BEARER, UNKNOWN_TOKEN)}
    async with serve(log, **pki.settings(tokens=True)) as server, aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{server.http_port}"
        for headers in ({}, {"Authorization": f"Basic {TOKEN}"}, {"Authorization": "Bearer \N{SNOWMAN}"}):
            sent = {"Content-Type": PROTOBUF} | headers
            async with session.post(f"{url}/v1/traces", data=traces(0, 1), headers=sent) as response:
                assert (response.status, response.content_type) == (401, PROTOBUF)
                assert response.headers["WWW-Authenticate"].startswith("Bearer")
                assert "token" in Status.FromString(await response.read()).message.lower()
        assert (await post(server, traces(1, 1), dict(bearer(TOKEN)))).status == 200
        async with session.get(f"{url}/health") as health:
            assert health.status == 200
    assert log.span_ids() == span_ids(1, 1)
    assert {
        reason: unauthenticated("http", reason) - count for reason, count in before.items()
    } == dict.fromkeys(before, 1)


async def test_what_a_stranger_sends_is_neither_unpacked_nor_measured(serve: Serve, pki: Pki) -> None:
    """Who has no token is answered that, not that the message unpacks to too much, or is not OTLP, or is not
    gzip.
    """
    log = MemoryLog()
    async with (
        serve(log, max_message="1MiB", **pki.settings(tokens=True)) as server,
        grpc_client(server) as channel,
    ):
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await export(channel, bytes(64 << 20), compression=grpc.Compression.Gzip)
        assert error.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert (await refused(channel, b"not OTLP")).code() is grpc.StatusCode.UNAUTHENTICATED
        for body in (GZIP_BOMB, b"not gzip"):
            assert (await post(server, body, {"Content-Encoding": "gzip"})).status == 401
    assert log.appended == []


async def test_a_stranger_is_not_asked_for_the_body(serve: Serve, pki: Pki) -> None:
    async with serve(MemoryLog(), **pki.settings(tokens=True)) as server:
        for token, status in (
            ("Bearer nobody-knows-this-one", b"HTTP/1.1 401"),
            (f"Bearer {TOKEN}", b"HTTP/1.1 100"),
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.http_port)
            lines = [
                "POST /v1/traces HTTP/1.1",
                "Host: x",
                f"Content-Type: {PROTOBUF}",
                "Content-Length: 1000000",
            ]
            lines += ["Expect: 100-continue", f"Authorization: {token}", "", ""]
            writer.write("\r\n".join(lines).encode())
            async with asyncio.timeout(LONG_S):
                assert (await reader.readline()).startswith(status)
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


async def test_tokens_are_replaced_on_connections_that_are_open(
    serve: Serve, pki: Pki, caplog: pytest.LogCaptureFixture
) -> None:
    log = MemoryLog()
    async with (
        serve(log, **pki.settings(tokens=True)) as server,
        grpc_client(server) as channel,
        aiohttp.ClientSession(
            f"http://127.0.0.1:{server.http_port}", headers={"Content-Type": PROTOBUF}
        ) as session,
    ):

        async def statuses(token: str, first: int) -> tuple[bool, int]:
            async with session.post(
                "/v1/traces", data=traces(first, 1), headers=dict(bearer(token))
            ) as response:
                await response.read()
            with contextlib.suppress(grpc.aio.AioRpcError):
                await export(channel, traces(first + 1, 1), metadata=bearer(token))
                return True, response.status
            return False, response.status

        assert [await statuses(TOKEN, 0), await statuses(NEXT_TOKEN, 2)] == [(True, 200), (False, 401)]
        pki.set_tokens(TOKEN, NEXT_TOKEN)
        await server.reload_credentials()
        assert [await statuses(TOKEN, 4), await statuses(NEXT_TOKEN, 6)] == [(True, 200), (True, 200)]
        pki.set_tokens(NEXT_TOKEN)
        await server.reload_credentials()
        assert [await statuses(TOKEN, 8), await statuses(NEXT_TOKEN, 10)] == [(False, 401), (True, 200)]
    assert sorted(log.span_ids()) == [*span_ids(0, 2), *span_ids(4, 4), *span_ids(10, 2)]
    assert TOKEN not in caplog.text
    assert NEXT_TOKEN not in caplog.text


async def test_a_changed_file_is_noticed(serve: Serve, pki: Pki) -> None:
    async with serve(MemoryLog(), **pki.settings(tokens=True)) as server:
        replacement = pki.folder / "new"
        replacement.write_text(NEXT_TOKEN)
        replacement.rename(pki.folder / "tokens")
        async with asyncio.timeout(LONG_S):
            while (await post(server, b"", dict(bearer(NEXT_TOKEN)))).status != 200:  # noqa: ASYNC110 - nothing reports it
                await asyncio.sleep(0.1)
        assert (await post(server, b"", dict(bearer(TOKEN)))).status == 401


async def test_a_broken_file_changes_nothing_and_is_logged_once(
    serve: Serve, pki: Pki, caplog: pytest.LogCaptureFixture
) -> None:
    async with serve(MemoryLog(), **pki.settings(tls=True, tokens=True)) as server:
        caplog.set_level(logging.WARNING)
        whole = {path: path.read_bytes() for path in pki.folder.iterdir()}
        for name, content, said in (
            ("tokens", b"short-" + TOKEN[:3].encode(), "line 1"),
            ("tls.key", b"torn", "no certificate and its key"),
        ):
            caplog.clear()
            (pki.folder / name).write_bytes(content)
            await server.reload_credentials()
            await server.reload_credentials()
            assert [said in record.getMessage() for record in caplog.records] == [True]
            assert REGISTRY.get_sample_value("meshflow_ingest_credentials_broken") == 1
            response = await post(server, b"", dict(bearer(TOKEN)), trusting(pki.ca))
            assert response.status == 200
            async with grpc_client(server, pki.channel()) as channel:
                assert await export(channel, b"", metadata=bearer(TOKEN)) == b""
            (pki.folder / name).write_bytes(whole[pki.folder / name])
            await server.reload_credentials()
            assert REGISTRY.get_sample_value("meshflow_ingest_credentials_broken") == 0
    assert TOKEN[:3] not in caplog.text


async def test_tls_shows_the_new_certificate_to_new_connections(serve: Serve, pki: Pki) -> None:
    log = MemoryLog()
    old, new = pki.ca, trustme.CA()
    async with (
        serve(log, **pki.settings(tls=True)) as server,
        grpc_client(server, pki.channel(old)) as before,
    ):
        assert await export(before, traces(0, 1)) == b""
        assert (await post(server, traces(1, 1), context=trusting(old))).status == 200
        pki.renew(new)
        await server.reload_credentials()
        async with grpc_client(server, pki.channel(new)) as after:
            assert await export(after, traces(2, 1)) == b""
        assert (await post(server, traces(3, 1), context=trusting(new))).status == 200
        assert await export(before, traces(4, 1)) == b"", "the connection goes on"
        async with grpc_client(server, pki.channel(old)) as late:
            assert (await refused(late, traces(5, 1))).code() is grpc.StatusCode.UNAVAILABLE
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await post(server, traces(6, 1), context=trusting(old))
    assert sorted(log.span_ids()) == span_ids(0, 5)


async def test_plain_text_is_not_spoken_where_tls_is(serve: Serve, pki: Pki) -> None:
    async with serve(MemoryLog(), **pki.settings(tls=True)) as server, grpc_client(server) as channel:
        assert (await refused(channel, traces(0, 1))).code() is grpc.StatusCode.UNAVAILABLE
        with pytest.raises(aiohttp.ClientError):
            await post(server, traces(0, 1))
        async with grpc_client(server, pki.channel()) as encrypted:
            assert await export(encrypted, traces(1, 1)) == b"", "others go on"


@contextlib.asynccontextmanager
async def mtls(serve: Serve, pki: Pki, log: MemoryLog) -> AsyncIterator[IngestServer]:
    async with serve(log, **pki.settings(mtls=True)) as server:
        yield server


async def let_in(
    server: IngestServer, pki: Pki, client_ca: trustme.CA | None, first: int
) -> tuple[bool, bool]:
    """Whether a client with a certificate of that CA gets through gRPC and HTTP, on new connections."""
    grpc_in = http_in = True
    async with grpc_client(server, pki.channel(client_ca=client_ca)) as channel:
        try:
            await export(channel, traces(first, 1))
        except grpc.aio.AioRpcError as error:
            grpc_in = error.code() is not grpc.StatusCode.UNAVAILABLE
    try:
        assert (await post(server, traces(first + 1, 1), context=trusting(pki.ca, client_ca))).status == 200
    except aiohttp.ClientError:
        http_in = False
    return grpc_in, http_in


async def test_clients_need_a_certificate_of_the_right_ca(serve: Serve, pki: Pki) -> None:
    log = MemoryLog()
    stranger = trustme.CA()
    async with mtls(serve, pki, log) as server:
        assert await let_in(server, pki, None, 0) == (False, False)
        assert await let_in(server, pki, stranger, 2) == (False, False)
        assert await let_in(server, pki, pki.client_ca, 4) == (True, True)
        pki.trust(pki.client_ca, stranger)
        await server.reload_credentials()
        assert await let_in(server, pki, stranger, 6) == (True, True)
        pki.trust(stranger)
        await server.reload_credentials()
        assert await let_in(server, pki, pki.client_ca, 8) == (False, False)
        assert await let_in(server, pki, stranger, 10) == (True, True)
    assert sorted(log.span_ids()) == [*span_ids(4, 4), *span_ids(10, 2)]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_session_does_not_outlive_the_ca_it_was_made_with(
    serve: Serve, pki: Pki, version: ssl.TLSVersion
) -> None:
    """OpenSSL resumes sessions without asking for the certificate again."""
    context = trusting(pki.ca, pki.client_ca)
    context.minimum_version = context.maximum_version = version

    def ask(port: int, session: ssl.SSLSession | None) -> tuple[ssl.SSLSession | None, bool]:
        with (
            socket.create_connection(("127.0.0.1", port), LONG_S) as plain,
            context.wrap_socket(plain, server_hostname="localhost", session=session) as tls,
        ):
            tls.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            answer = tls.recv(1 << 16)
            return (tls.session, True) if answer.startswith(b"HTTP/1.1 200") else (None, False)

    async with mtls(serve, pki, MemoryLog()) as server:
        session, served = await asyncio.to_thread(ask, server.http_port, None)
        assert served
        pki.trust(trustme.CA())
        await server.reload_credentials()
        with contextlib.suppress(ssl.SSLError, ConnectionError):
            assert await asyncio.to_thread(ask, server.http_port, session) == (None, False)
