"""Settings of the SQL and metrics port."""

from datetime import timedelta

from pydantic import BaseModel, ConfigDict, Field, SecretStr

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
        description="Port of /metrics of `meshflow ingest` and `process`, which answer no SQL; 0: a free one.",
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
    max_insert_size: Size = Field(
        1 << 30, gt=0, description="Rows of one INSERT, unpacked (`meshflow store --writable`)."
    )
    max_writes: int = Field(2, ge=1, description="Statements that write and run at the same time; more wait.")
