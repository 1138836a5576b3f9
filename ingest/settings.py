"""Settings of the receivers (``[ingest]`` in meshflow.toml)."""

from datetime import timedelta
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from ingest.http.cors import origin_fault
from log.kafka.settings import KafkaWriterSettings
from log.spool.settings import SpoolSettings
from schemas.units import Duration, Size

MIB = 1 << 20


class TlsSettings(BaseModel):
    """TLS of both receivers; files in PEM, read again when they change."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    certificate: str = Field("", description="File of the certificate (and its chain). Empty: plain text.")
    key: str = Field("", description="File of the certificate's key.")
    client_ca: str = Field(
        "",
        description="File of the CAs that clients' certificates come from; set, a client needs one (mTLS).",
    )

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if bool(self.certificate) != bool(self.key):
            raise ValueError("certificate and key go together")
        if self.client_ca and not self.certificate:
            raise ValueError("client_ca needs certificate and key")
        return self


class AuthSettings(BaseModel):
    """Tokens that senders must show."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tokens: str = Field(
        "",
        description="File of bearer tokens, one a line, read again when it changes. Empty: no token is asked for.",
    )


class CorsSettings(BaseModel):
    """Pages in browsers that may send OTLP/HTTP. Without origins no page may."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    origins: tuple[str, ...] = Field(
        (),
        description='Origins whose pages may send: "https://shop.example", "https://*.shop.example", "http://localhost:*"; "*": any.',
    )
    headers: tuple[str, ...] = Field(
        (), description="Request headers that such pages may set besides those of OTLP and Authorization."
    )

    @field_validator("origins")
    @classmethod
    def _are_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if fault := origin_fault(origin):
                raise ValueError(fault)
        return origins


class IngestSettings(BaseModel):
    """Where OTLP is received and what may be held while the log is slow. Ports: 0 takes a free one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    receiver: Literal["auto", "native", "grpcio"] = Field(
        "auto",
        description="Who receives OTLP/gRPC: native (Rust), or grpcio (no native code; fails zstd, snappy); auto: native if built.",
    )
    receiver_threads: int = Field(
        1, ge=1, le=64, description="Threads of the native receiver; one carries 50K spans/s and more."
    )
    host: str = Field(
        "127.0.0.1", description="Address that both receivers listen on; 0.0.0.0 or :: for every interface."
    )
    grpc_port: int = Field(4317, ge=0, le=65535, description="Port of OTLP/gRPC; 0 takes a free one.")
    http_port: int = Field(4318, ge=0, le=65535, description="Port of OTLP/HTTP; 0 takes a free one.")
    workers: int = Field(
        1,
        ge=1,
        le=256,
        description="Processes of `meshflow ingest` that share both ports; each has its own spool.",
    )
    max_message: Size = Field(
        64 * MIB, gt=0, description="Largest request, also unpacked; larger ones are refused for good."
    )
    max_json_message: Size = Field(
        16 * MIB,
        gt=0,
        description="Largest OTLP/JSON request, also unpacked: as Python objects JSON takes about ten times its size.",
    )
    gather_window: Duration = Field(
        timedelta(milliseconds=50),
        description="How long requests are gathered into one record per partition before they are appended.",
    )
    record_size: Size = Field(
        MIB,
        gt=0,
        description="A partition's gather is appended early at this size; a larger part of a request is one larger record.",
    )
    buffer_size: Size = Field(
        256 * MIB,
        gt=0,
        description="Bytes held for the log: requests, their parts and 16 KiB a call, until answered; beyond it they are refused.",
    )
    retry_after: Duration = Field(
        timedelta(seconds=1), description="How long refused senders are to wait (RetryInfo, Retry-After)."
    )
    drain_time: Duration = Field(
        timedelta(seconds=10), description="How long a stop waits for requests that have begun."
    )
    max_connection_age: Duration = Field(
        timedelta(minutes=5),
        description="Age at which a gRPC connection is asked to reconnect (+-10 %), so that new receivers get their share.",
    )
    max_connection_age_grace: Duration = Field(
        timedelta(seconds=30), description="How long requests on such a connection may still take."
    )
    max_connections: int = Field(
        16_384, gt=0, description="Open gRPC connections; further ones are closed at once."
    )
    max_http_connections: int = Field(
        2048, gt=0, description="Open HTTP connections; further ones are closed at once."
    )
    max_receiving: Size = Field(
        256 * MIB,
        gt=0,
        description="Bytes of requests that have not come to their end, in HTTP and in the native receiver each; further ones are refused.",
    )
    max_concurrent_streams: int = Field(
        1024, gt=0, description="Requests under way on one gRPC connection (Envoy: up to 1,024)."
    )
    keepalive_time: Duration = Field(
        timedelta(minutes=1), description="Silence on a gRPC connection after which it is pinged."
    )
    keepalive_timeout: Duration = Field(
        timedelta(seconds=20), description="Wait for a ping's answer, a handshake, the next HTTP request."
    )
    body_timeout: Duration = Field(
        timedelta(minutes=1),
        gt=timedelta(0),
        description="How long the body of a request may take to come; then it is refused.",
    )
    tls: TlsSettings = Field(default=TlsSettings(), description="TLS of both receivers.")
    auth: AuthSettings = Field(default=AuthSettings(), description="Tokens that senders must show.")
    cors: CorsSettings = Field(
        default=CorsSettings(), description="Pages in browsers that may send OTLP/HTTP."
    )
    kafka: KafkaWriterSettings = Field(default=KafkaWriterSettings(), description="Writing to Kafka.")
    spool: SpoolSettings = Field(
        default=SpoolSettings(), description="What is kept on disk while Kafka is away."
    )
