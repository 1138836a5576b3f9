"""Settings of the log and of the store: places as URLs, and how long what is kept."""

import re
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Self
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import BaseModel, ConfigDict, Field, model_validator

from schemas.topics import LOGS, METRICS, SPANS
from schemas.units import Duration, Size
from storage.clickhouse_settings import ClickHouseSettings
from storage.health_settings import HealthSettings
from storage.redact_settings import RedactSettings

_DAY = timedelta(days=1)
_HOUR = timedelta(hours=1)
_LOG_FORMS = "sqlite:///DIR or kafka://HOST:PORT,...[/TOPIC-PREFIX]"
_STORE_FORMS = "chdb:///DIR or clickhouse://USER:PASSWORD@HOST:8123/DATABASE"
_PASSWORD = re.compile(r"(://[^:@]*:).*@", re.DOTALL)
_ODD = "characters like @ / ? # [ in a password are written as %40 %2F %3F %23 %5B"


@dataclass(frozen=True, slots=True)
class SqliteLog:
    """The embedded log: one SQLite file in ``directory``."""

    directory: Path


@dataclass(frozen=True, slots=True)
class KafkaLog:
    """A Kafka cluster, and what its topics' names begin with."""

    bootstrap: tuple[str, ...]
    prefix: str = ""


@dataclass(frozen=True, slots=True)
class ChdbStore:
    """ClickHouse's engine in process, its data in ``directory``."""

    directory: Path


@dataclass(frozen=True, slots=True)
class ClickHouseStore:
    """A ClickHouse server's HTTP interface."""

    host: str
    port: int
    database: str
    username: str
    password: str = field(repr=False)
    secure: bool
    options: ClickHouseSettings = field(default_factory=ClickHouseSettings, repr=False)
    cluster: str = ""
    """Whose shards hold the tables ("" the server alone)."""


def without_password(text: str) -> str:
    """A URL to be shown: all between the user's name and the last ``@`` is hidden, wherever that stands."""
    return _PASSWORD.sub(r"\1***@", text)


def parse_log_url(url: str) -> SqliteLog | KafkaLog:
    """Where the log is. ``sqlite:///DIR`` is a path as written: ``sqlite:///var/log`` is ``/var/log``,
    ``sqlite://./data`` is relative.

    Raises ValueError with the forms that are understood; never shows a password.
    """
    scheme, _, rest = url.partition("://")
    shown = without_password(url)
    if scheme == "sqlite":
        return SqliteLog(_directory(url, rest, _LOG_FORMS))
    if scheme == "kafka":
        hosts, _, prefix = rest.partition("/")
        servers = tuple(server for server in hosts.split(",") if server)
        if not servers or any(not server.rpartition(":")[2].isdigit() for server in servers):
            raise ValueError(
                f"log = {shown!r}: each Kafka server needs HOST:PORT, as in kafka://a:9092,b:9092"
            )
        if not re.fullmatch(r"[a-zA-Z0-9._-]{0,200}", prefix):
            raise ValueError(f"log = {shown!r}: a topic prefix consists of letters, digits and ._-")
        return KafkaLog(servers, prefix)
    raise ValueError(f"log = {shown!r} is not understood; write {_LOG_FORMS}")


def parse_store_url(url: str) -> ChdbStore | ClickHouseStore:
    """Where the tables are (``clickhouses://`` or ``?secure=true`` for TLS).

    Raises ValueError with the forms that are understood; never shows a password.
    """
    scheme, _, rest = url.partition("://")
    if scheme == "chdb":
        return ChdbStore(_directory(url, rest, _STORE_FORMS))
    if scheme not in {"clickhouse", "clickhouses"}:
        raise ValueError(f"store = {scheme}://... is not understood; write {_STORE_FORMS}")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError(
            f"store: the host is not one, or its port is not a number of 1-65535; write {_STORE_FORMS}"
            f" ({_ODD})"
        ) from None  # its text shows what it took for a host, which may be a part of the password
    if "@" in url[url.index("://") + 3 + len(parts.netloc) :]:
        raise ValueError(f"store: there is an @ after the host; write {_STORE_FORMS} ({_ODD})")
    secure = scheme == "clickhouses" or _asks_for_tls(parts.query)
    if not parts.hostname:
        raise ValueError(f"store = {scheme}://...: a host is missing; write {_STORE_FORMS}")
    if not re.fullmatch(r"/?\w*/?", parts.path):
        raise ValueError(
            f"store: the database of {parts.hostname} consists of letters, digits and _; write {_STORE_FORMS}"
        )
    return ClickHouseStore(
        host=parts.hostname,
        port=port or (8443 if secure else 8123),
        database=unquote(parts.path.strip("/")) or "default",
        username=unquote(parts.username or "default"),
        password=unquote(parts.password or ""),
        secure=secure,
    )


def _asks_for_tls(query: str) -> bool:
    options = dict(parse_qsl(query, keep_blank_values=True))
    secure = options.pop("secure", "false").lower()
    if options or secure not in {"true", "1", "false", "0"}:
        raise ValueError("store: after ? only secure=true is understood; [storage.clickhouse] has the rest")
    return secure in {"true", "1"}


def _directory(url: str, rest: str, forms: str) -> Path:
    path = unquote(rest.partition("?")[0])
    if not path.strip("/"):
        raise ValueError(f"{without_password(url)!r}: a directory is missing; write {forms}")
    return Path(path)


class StorageSettings(BaseModel):
    """``[storage]`` of meshflow.toml."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    data: Path = Field(
        Path("meshflow-data"),
        description="Folder of the embedded mode: the log in DIR/log, the tables in DIR/store.",
    )
    log: str = Field("", description=f"The log: {_LOG_FORMS}. Empty: sqlite in DIR/log of `data`.")
    store: str = Field("", description=f"The tables: {_STORE_FORMS}. Empty: chdb in DIR/store of `data`.")

    clickhouse: ClickHouseSettings = Field(
        default_factory=ClickHouseSettings, description="Login and TLS of a ClickHouse server."
    )

    partitions: int = Field(
        4,
        ge=1,
        le=4096,
        description="Partitions of each topic in the embedded log (can be raised, not lowered).",
    )
    log_retention: Duration = Field(
        _DAY,
        description="How long the embedded log keeps records that were read and committed (unread ones stay).",
    )
    log_max_bytes: Size = Field(
        10 << 30,
        ge=64 << 20,
        description="Size of the embedded log; beyond it the oldest records go, read or not (the ledger counts them).",
    )
    log_max_pending_bytes: Size = Field(
        256 << 20,
        ge=1 << 20,
        description="Bytes that may wait for the embedded log's disk; beyond it appends are refused as full.",
    )

    dead_letters_max_bytes: Size = Field(
        256 << 20,
        ge=1 << 20,
        description="Payloads of dead letters beside the embedded log; beyond it the oldest payloads go, what is known of them stays.",
    )

    traces_ttl: Duration = Field(7 * _DAY, ge=_HOUR, description="How long kept traces stay.")
    error_traces_ttl: Duration = Field(
        14 * _DAY, ge=_HOUR, description="How long kept traces with an error stay."
    )
    logs_ttl: Duration = Field(7 * _DAY, ge=_HOUR, description="How long log records stay.")
    metrics_ttl: Duration = Field(7 * _DAY, ge=_HOUR, description="How long metric points stay.")
    rollup_10s_ttl: Duration = Field(
        2 * _DAY, description="How long RED, edges, counters stay in 10 s slots."
    )
    rollup_1m_ttl: Duration = Field(
        7 * _DAY, description="How long RED, edges, counters stay in 1 min slots."
    )
    rollup_1h_ttl: Duration = Field(90 * _DAY, description="How long RED, edges, counters stay in 1 h slots.")
    ledger_ttl: Duration = Field(30 * _DAY, ge=_HOUR, description="How long the ledger stays.")
    rollup_grace: Duration = Field(
        timedelta(minutes=15),
        description="How long after an hour's end (by log time) its rows are rolled up; what comes later is marked late.",
    )
    deduplication_window: int = Field(
        20_000,
        ge=1_000,
        description="Blocks whose names a table remembers; a block repeated within them is dropped (see docs/adr/0012).",
    )
    cluster: str = Field(
        "",
        pattern=r"^\w*$",
        description="ClickHouse cluster for Replicated and Distributed tables; empty: one server.",
    )

    health: HealthSettings = Field(
        default_factory=HealthSettings,
        description="From when on the views of the mesh call what degraded or failing.",
    )
    redact: RedactSettings = Field(
        default_factory=RedactSettings, description="What of attributes and texts is not stored."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        parse_log_url(self.log_url)
        place = parse_store_url(self.store_url)
        tls = (
            self.clickhouse.ca_file
            or self.clickhouse.certificate_file
            or not self.clickhouse.check_certificate
        )
        if tls and not (isinstance(place, ClickHouseStore) and place.secure):
            raise ValueError(
                "certificates in [storage.clickhouse] are of no use without store = clickhouses://..."
            )
        if not timedelta(hours=2) <= self.rollup_10s_ttl - self.rollup_grace:
            raise ValueError(
                "rollup_10s_ttl must be at least 2h more than rollup_grace: hours are rolled up from these rows"
            )
        if (
            not self.rollup_10s_ttl + timedelta(hours=2)
            <= self.rollup_1m_ttl
            <= self.rollup_1h_ttl - timedelta(hours=2)
        ):
            raise ValueError(
                "rollup_10s_ttl < rollup_1m_ttl < rollup_1h_ttl, each at least 2h longer than the one before, is needed"
            )
        if self.error_traces_ttl < self.traces_ttl:
            raise ValueError("error_traces_ttl must not be shorter than traces_ttl")
        return self

    @property
    def log_url(self) -> str:
        """``log``, or the place that ``data`` gives it."""
        return self.log or f"sqlite://{self.data / 'log'}"

    @property
    def store_url(self) -> str:
        """``store``, or the place that ``data`` gives it."""
        return self.store or f"chdb://{self.data / 'store'}"

    @property
    def log_place(self) -> SqliteLog | KafkaLog:
        """``log_url``, parsed."""
        return parse_log_url(self.log_url)

    @property
    def store_place(self) -> ChdbStore | ClickHouseStore:
        """``store_url``, parsed, with what ``clickhouse`` and ``cluster`` say."""
        place = parse_store_url(self.store_url)
        if not isinstance(place, ClickHouseStore):
            return place
        more = self.clickhouse
        return replace(
            place,
            username=more.username or place.username,
            password=more.password.get_secret_value() or place.password,
            options=more,
            cluster=self.cluster,
        )

    def log_topics(self) -> dict[str, int]:
        """Topic -> partitions of the embedded log."""
        return dict.fromkeys((SPANS, METRICS, LOGS), self.partitions)
