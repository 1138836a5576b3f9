"""Settings of the SQL and metrics port."""

from datetime import timedelta

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from console.names import host_of
from schemas.units import Duration, Size


class ConsoleSettings(BaseModel):
    """``[console]``: where SQL is answered, and what one query may cost, so that reading never hurts
    ingest.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    host: str = Field(
        "127.0.0.1",
        description="Address that SQL over HTTP and /metrics listen on. 0.0.0.0: every interface.",
    )
    sql_port: int = Field(
        8123,
        ge=0,
        le=65535,
        description="Port of SQL over HTTP (as ClickHouse's) and /metrics; 0: a free one.",
    )
    metrics_port: int = Field(
        9464,
        ge=0,
        le=65535,
        description="Port of /metrics of `meshflow ingest`, `process`, `repartition` and `scrape`; 0, or where 9464 is taken: a free one.",
    )
    hosts: tuple[str, ...] = Field(
        (),
        description="Further names, without a port, that clients may call the port of SQL or /metrics by (`Host`; `Origin` of a web page); "
        "loopback's and `host` are known.",
    )
    max_connections: int = Field(
        128,
        gt=0,
        description="Open connections of the port of SQL or /metrics, at most a quarter of `ulimit -n`; further ones are closed at once.",
    )
    client_timeout: Duration = Field(
        timedelta(seconds=30),
        gt=timedelta(0),
        description="A connection without a whole request is closed after this time. A body may take as long to come, and an answer "
        "to be read, beyond the time that `min_rate` gives them.",
    )
    min_rate: Size = Field(
        128 << 10,
        gt=0,
        description="Bytes a second at which large bodies must come and large answers be read.",
    )
    max_held_size: Size = Field(
        256 << 20,
        gt=0,
        description="Bytes held in memory for all connections: answers until they are read, bodies until they are whole. A request that "
        "needs more is refused; 64 KiB of each have room in any case.",
    )
    max_query_time: Duration = Field(
        timedelta(seconds=30), description="A query that runs longer is stopped."
    )
    max_query_memory: Size = Field(512 << 20, gt=0, description="Memory that one query may use.")
    max_query_threads: int = Field(1, ge=1, description="Threads that one query may use.")
    max_result_size: Size = Field(
        64 << 20, gt=0, description="Size of one answer before it is formatted; a larger one is an error."
    )
    max_queries: int = Field(2, ge=1, description="Queries that run at the same time; more wait.")
    max_waiting_queries: int = Field(32, ge=0, description="Queries that may wait; more are refused at once.")
    max_request_size: Size = Field(
        1 << 20, gt=0, description="Largest statement (and request body, but for the rows of an INSERT)."
    )
    username: str = Field("default", description="Name that SQL clients give, where a password is set.")
    password: SecretStr = Field(
        SecretStr(""),
        description="Password of the SQL port, by HTTP basic authentication or X-ClickHouse-Key; empty: everyone is let in.",
    )
    password_file: str = Field(
        "",
        description="File whose first line is the password, where `password` is empty; made with a random one if it is not there. "
        "Empty: none.",
    )
    allow_without_password: bool = Field(
        False,
        description="Listen on an address that other machines reach (`host`) without a password too: everyone there may ask.",
    )
    max_insert_size: Size = Field(
        1 << 30, gt=0, description="Rows of one INSERT, unpacked (`meshflow store --writable`)."
    )
    max_writes: int = Field(2, ge=1, description="Statements that write and run at the same time; more wait.")

    @field_validator("hosts")
    @classmethod
    def _are_hosts(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        for host in hosts:
            written = f"[{host}]" if host.count(":") > 1 else host
            if (":" in host and written == host) or host_of(written) is None:
                raise ValueError(f"{host!r} is not a name or an address; write it without scheme and port")
        return hosts
