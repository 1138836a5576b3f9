"""Login and TLS of a server: a real TLS listener in front of a `meshflow store` that asks for a password."""

import asyncio
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest
import trustme

from meshflow.settings import SettingsInvalid, load, names, value_of
from schemas.errors import QueryFailed, SinkUnavailable, SinkUnusable
from schemas.sql import Limits, Query
from storage.client import open_client
from storage.migrate import migrate
from storage.settings import ClickHouseStore, StorageSettings, parse_store_url
from storage.sql.server_engine import ServerEngine
from tests.support.store_server import StoreServer

PASSWORD = "open:/ sesame"
LIMITS = Limits(time_s=60, memory_bytes=512 << 20, threads=1, result_bytes=4 << 20)


class TlsFront:
    """Takes TLS connections and passes their bytes on to a port."""

    def __init__(self, context: ssl.SSLContext, target: int) -> None:
        self.port = 0
        self._context = context
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._open: set[asyncio.StreamWriter] = set()
        self._passing: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "TlsFront":
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self) -> None:
        self._stop = asyncio.Event()
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._pass_on, "127.0.0.1", 0, ssl=self._context)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        for writer in self._open:
            writer.transport.abort()
        await asyncio.gather(*self._passing)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._passing.add(task)
        there, back = await asyncio.open_connection("127.0.0.1", self._target)
        self._open |= {writer, back}
        await asyncio.gather(_copy(reader, back), _copy(there, writer))
        self._open -= {writer, back}
        self._passing.discard(task)


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with suppress(OSError, ssl.SSLError):
        while chunk := await source.read(1 << 16):
            target.write(chunk)
            await target.drain()
    target.close()


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreServer]:
    server = StoreServer(
        tmp_path_factory.mktemp("locked"), f'[console]\nusername = "mesh"\npassword = "{PASSWORD}"\n'
    )
    try:
        yield server.start()
    finally:
        server.kill()


@pytest.fixture
def ca() -> trustme.CA:
    return trustme.CA()


@contextmanager
def front(
    server: StoreServer, ca: trustme.CA, name: str = "127.0.0.1", clients: trustme.CA | None = None
) -> Iterator[int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(name).configure_cert(context)
    if clients:
        clients.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
    with TlsFront(context, server.port) as listening:
        yield listening.port


def settings(folder: Path, port: int, **options: object) -> StorageSettings:
    clickhouse = {"username": "mesh", "password": PASSWORD, **options}
    return StorageSettings.model_validate(
        {"data": folder, "store": f"clickhouses://127.0.0.1:{port}/default", "clickhouse": clickhouse}
    )


def ca_file(folder: Path, ca: trustme.CA) -> str:
    ca.cert_pem.write_to_path(str(folder / "ca.pem"))
    return str(folder / "ca.pem")


def use(made: StorageSettings) -> None:
    """Both ways to a server: the client of sink, migrations and roll-ups, and the engine of the SQL port."""
    place = made.store_place
    assert isinstance(place, ClickHouseStore)
    with closing(open_client(place)) as client:
        migrate(client, made)
        assert client.command("SELECT count() FROM red") == 0
    with closing(ServerEngine(place)) as engine:
        assert engine.execute(Query("SELECT 1 + {n:UInt8}", parameters={"n": "1"}), LIMITS).body == b"2\n"


def refused(made: StorageSettings, reason: str) -> None:
    place = made.store_place
    assert isinstance(place, ClickHouseStore)
    with pytest.raises((SinkUnavailable, SinkUnusable)) as failed:
        open_client(place)
    assert reason in str(failed.value)
    with (
        pytest.raises((QueryFailed, SinkUnavailable, SinkUnusable)) as also,
        closing(ServerEngine(place)) as engine,
    ):
        engine.execute(Query("SELECT 1"), LIMITS)
    for error in (failed.value, also.value):
        assert "sesame" not in str(error)


def test_a_certificate_of_the_given_authority_is_trusted_no_other(
    locked: StoreServer, ca: trustme.CA, tmp_path: Path
) -> None:
    with front(locked, ca) as port:
        use(settings(tmp_path, port, ca_file=ca_file(tmp_path, ca)))
        refused(settings(tmp_path, port), "CERTIFICATE_VERIFY_FAILED")
        refused(
            settings(tmp_path, port, ca_file=ca_file(tmp_path, trustme.CA())), "CERTIFICATE_VERIFY_FAILED"
        )


def test_the_name_is_checked_unless_configured_otherwise(
    locked: StoreServer, ca: trustme.CA, tmp_path: Path
) -> None:
    with front(locked, ca, name="elsewhere.example") as port:
        refused(settings(tmp_path, port, ca_file=ca_file(tmp_path, ca)), "IP address mismatch")
        use(settings(tmp_path, port, check_certificate=False))


def test_a_client_certificate_where_the_server_asks_for_one(
    locked: StoreServer, ca: trustme.CA, tmp_path: Path
) -> None:
    clients = trustme.CA()
    issued = clients.issue_cert("mesh")
    issued.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    issued.cert_chain_pems[0].write_to_path(str(tmp_path / "mesh.pem"))
    files = {"certificate_file": str(tmp_path / "mesh.pem"), "key_file": str(tmp_path / "key.pem")}
    with front(locked, ca, clients=clients) as port:
        use(settings(tmp_path, port, ca_file=ca_file(tmp_path, ca), **files))
        refused(settings(tmp_path, port, ca_file=ca_file(tmp_path, ca)), "cannot be opened")
        refused(
            settings(tmp_path, port, ca_file=str(tmp_path / "nowhere.pem")), "storage.clickhouse.ca_file = "
        )


def test_a_wrong_password_is_refused(locked: StoreServer, ca: trustme.CA, tmp_path: Path) -> None:
    with front(locked, ca) as port:
        refused(
            settings(tmp_path, port, ca_file=ca_file(tmp_path, ca), password="sesame"),
            "Authentication failed",
        )


def test_a_password_in_the_url_does_as_well(locked: StoreServer, tmp_path: Path) -> None:
    made = StorageSettings(
        data=tmp_path, store=f"clickhouse://mesh:open%3A%2F%20sesame@127.0.0.1:{locked.port}/default"
    )
    use(made)
    assert "sesame" not in repr(made.store_place)


def test_forms_of_the_url() -> None:
    def parsed(url: str) -> tuple[str, int, str, bool]:
        place = parse_store_url(url)
        assert isinstance(place, ClickHouseStore)
        return place.host, place.port, place.database, place.secure

    assert parsed("clickhouse://db") == ("db", 8123, "default", False)
    assert parsed("clickhouse://db/mesh?secure=true") == ("db", 8443, "mesh", True)
    assert parsed("clickhouses://[::1]:99/mesh") == ("::1", 99, "mesh", True)
    for wrong in (
        "clickhouse://db/a-b",
        "clickhouse://db?secure=perhaps",
        "clickhouse://db?verify=no",
        "clickhouse:///mesh",
    ):
        with pytest.raises(ValueError, match="store"):
            parse_store_url(wrong)


def test_secrets_are_not_shown(tmp_path: Path) -> None:
    environ = {
        "MESHFLOW_STORE": "clickhouses://mesh:sesame-1@db/mesh",
        "MESHFLOW_STORAGE__CLICKHOUSE__PASSWORD": "sesame-2",
        "MESHFLOW_CONSOLE__PASSWORD": "sesame-3",
    }
    loaded = load(environ=environ)
    shown = " ".join(f"{name} {value_of(loaded.settings, name)}" for name in names())
    assert "sesame" not in shown + repr(loaded.settings.storage.clickhouse) + repr(
        loaded.settings.storage.store_place
    )
    place = loaded.settings.storage.store_place
    assert isinstance(place, ClickHouseStore)
    assert place.password == "sesame-2"
    with pytest.raises(SettingsInvalid, match="certificates in") as invalid:
        load(
            environ={
                **environ,
                "MESHFLOW_STORE": "clickhouse://mesh:sesame-1@db/mesh",
                "MESHFLOW_STORAGE__CLICKHOUSE__CA_FILE": "x",
            }
        )
    assert "sesame" not in str(invalid.value)
    with pytest.raises(SettingsInvalid) as invalid:
        load(environ={**environ, "MESHFLOW_STORE": "clickhouse://mesh:sesame-1@db:99999/mesh"})
    assert "sesame" not in str(invalid.value)
