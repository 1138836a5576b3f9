"""Asks read-only SQL: of a running ``meshflow up``, of any ClickHouse HTTP port, or of a data folder at
rest.
"""

import json
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from console.password import read_password
from console.settings import ConsoleSettings
from meshflow.ports import PORTS_FILE
from meshflow.settings import Settings
from schemas.errors import MeshflowError, QueryFailed
from schemas.sql import Engine, Limits, Query
from storage.settings import ChdbStore, ClickHouseStore


class NothingToAsk(MeshflowError):
    """There is neither a running meshflow nor a data folder."""


def ask(sql: str, output_format: str, settings: Settings, url: str | None) -> bytes:
    """The answer in ``output_format`` (a FORMAT clause of the query wins). Raises QueryFailed, NothingToAsk,
    SinkUnavailable.
    """
    running = "" if url else _running(settings.storage.data)
    if url or running:
        account = _account(settings.console) if running else {}  # another's port gets no password of ours
        return _ask_over_http(sql, output_format, url or running, settings.console, account)
    place = settings.storage.store_place
    engine = _at_rest(place.directory) if isinstance(place, ChdbStore) else _server(place)
    try:
        return engine.execute(Query(sql, output_format), limits(settings.console)).body
    finally:
        engine.close()


def limits(settings: ConsoleSettings) -> Limits:
    """What one query may cost."""
    return Limits(
        settings.max_query_time.total_seconds(),
        settings.max_query_memory,
        settings.max_query_threads,
        settings.max_result_size,
    )


def _running(data: Path) -> str:
    """URL of the SQL port of the ``up`` that uses a data folder; "" when none does."""
    try:
        ports = json.loads((data / PORTS_FILE).read_bytes())
        url = f"http://{ports['host']}:{ports['sql']}/"
        with urllib.request.urlopen(f"{url}ping", timeout=5):  # noqa: S310 - an address that meshflow wrote
            return url
    except (OSError, ValueError, KeyError):
        return ""


def _account(settings: ConsoleSettings) -> dict[str, str]:
    password = read_password(settings)
    return {"X-ClickHouse-User": settings.username, "X-ClickHouse-Key": password} if password else {}


def _ask_over_http(
    sql: str, output_format: str, url: str, settings: ConsoleSettings, account: dict[str, str]
) -> bytes:
    if not url.startswith(("http://", "https://")):
        raise NothingToAsk(f"{url!r} is not a URL of SQL over HTTP; write it like http://127.0.0.1:8123")
    joined = f"{url}{'&' if '?' in url else '?'}{urllib.parse.urlencode({'default_format': output_format})}"
    try:
        request = urllib.request.Request(joined, sql.encode(), account)  # noqa: S310
        timeout_s = settings.max_query_time.total_seconds() + 30
        with urllib.request.urlopen(request, timeout=timeout_s) as response:  # noqa: S310
            body: bytes = response.read()
            return body
    except urllib.error.HTTPError as error:
        raise QueryFailed(
            int(error.headers.get("X-ClickHouse-Exception-Code", 0)),
            error.read().decode(errors="replace").strip(),
        ) from None
    except OSError as error:
        raise NothingToAsk(
            f"{urllib.parse.urlsplit(url).netloc.rpartition('@')[2]} does not answer: {getattr(error, 'reason', error)}"
        ) from error


def _at_rest(store: Path) -> Engine:
    from storage.sql.chdb_engine import ChdbEngine  # noqa: PLC0415 - chdb takes a second to load and is not needed over HTTP

    if not store.is_dir():
        raise NothingToAsk(
            f"there is no running meshflow and no data in {store}; start `meshflow up`, or say --data or --url"
        )
    return ChdbEngine(str(store.resolve()))


def _server(place: ClickHouseStore) -> Engine:
    from storage.sql.server_engine import ServerEngine  # noqa: PLC0415 - brings urllib3

    return ServerEngine(place)
