"""The Rust crate ``native/``; may be absent.

Buffers are those of Arrow arrays, in the order of the schemas in ``schemas.spans``,
``schemas.points``, ``schemas.logs`` and ``schemas.contexts``. ``clusters``: none, or one for each payload.
"""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
from typing_extensions import Buffer

_Batch: TypeAlias = tuple[int, list[Buffer]]
_Contexts: TypeAlias = tuple[_Batch, _Batch, _Batch, list[Buffer], int]
_Counts: TypeAlias = tuple[int, int, int] | list[int]
_Parts: TypeAlias = tuple[dict[int, bytes] | None, int, int, int, int, int]

class Decoder:
    def __new__(
        cls,
        span_keys: Mapping[str, Sequence[str]],
        resource_keys: Mapping[str, Sequence[str]],
        unknown_service: str,
        no_flags: str,
        upper_ns: Sequence[int],
        malformed: type[Exception],
        over_limit: type[Exception],
    ) -> Decoder: ...
    def decode_spans(
        self,
        payloads: Sequence[bytes],
        extra_keys: Sequence[str],
        clusters: Sequence[str],
        limits: tuple[int, int, int, int, int],
    ) -> tuple[_Batch, _Batch, _Batch, list[Buffer], int]: ...
    def decode_points(
        self, payloads: Sequence[bytes], clusters: Sequence[str], limits: tuple[int, int, int, int, int]
    ) -> tuple[_Batch, _Batch, _Batch, _Contexts]: ...
    def decode_logs(
        self, payloads: Sequence[bytes], clusters: Sequence[str], limits: tuple[int, int, int, int, int]
    ) -> tuple[_Batch, _Contexts]: ...
    def decode_details(
        self,
        payloads: Sequence[bytes],
        positions: tuple[np.ndarray, np.ndarray, np.ndarray],
        limits: tuple[int, int, int, int, int],
    ) -> list[Buffer]: ...
    def weigh(self, signal: int, payload: bytes) -> tuple[int, int]: ...
    def mend(self, topic: int, request: bytes) -> tuple[bytes, int, int]: ...
    def split_spans(self, request: bytes, partitions: int, most_bytes: int) -> _Parts: ...
    def split_metrics(self, request: bytes, partitions: int, most_bytes: int) -> _Parts: ...
    def split_logs(self, request: bytes, partitions: int, most_bytes: int) -> _Parts: ...

def descriptors() -> dict[str, dict[int, str]]: ...

class Receiver:
    """What waits for the log, and OTLP/gRPC in front of it.

    Topics are indices of ``schemas.topics.TOPICS``.
    """

    def __new__(
        cls,
        *,
        now_ns: int,
        partitions: int,
        window_ns: int,
        record_size: int,
        buffer_size: int,
        retry_ns: int,
        max_message: int,
        max_receiving: int,
        max_streams: int,
        max_age_s: float,
        age_grace_s: float,
        keepalive_time_s: float,
        keepalive_timeout_s: float,
        body_timeout_s: float,
    ) -> Receiver: ...
    @property
    def held_bytes(self) -> int: ...
    @property
    def idle(self) -> bool: ...
    @property
    def has_full(self) -> bool: ...
    @property
    def refused(self) -> _Counts: ...
    @property
    def stopped(self) -> bool: ...
    def bell(self) -> int: ...
    def heard(self) -> None: ...
    def reserve(self, size: int) -> bool: ...
    def release(self, size: int) -> None: ...
    def add(
        self,
        topic: int,
        parts: Sequence[tuple[int, bytes]],
        items: int,
        rejected: int,
        repaired: int,
        request_bytes: int,
        now_ns: int,
        reply: int,
    ) -> tuple[str, int] | None: ...
    def refuse(self, topic: int, items: int, now_ns: int) -> None: ...
    def hurry(self, now_ns: int) -> None: ...
    def close(self) -> None: ...
    def due_ns(self) -> int | None: ...
    def take(self, now_ns: int) -> tuple[int, list[tuple[int, int, bytes, int, int, int]]] | None: ...
    def finish(
        self, number: int, failure: tuple[int, str, int | None] | None, now_ns: int
    ) -> tuple[_Counts, _Counts, _Counts, list[tuple[int, bool]]]: ...
    def start(self, host: str, port: int, workers: int, reuse_port: bool, max_connections: int) -> int: ...
    def stop(self, grace_s: float) -> None: ...
    def join(self) -> None: ...
    def set_tokens(self, tokens: Sequence[bytes] | None) -> None: ...
    def set_max_record(self, most: Sequence[int]) -> None: ...
    def set_tls(self, certificate: bytes, key: bytes, client_ca: bytes) -> None: ...
    def counters(self) -> tuple[list[tuple[int, int, int]], _Counts, _Counts, _Counts, int, int, int]: ...
    def notes(self, everything: bool) -> list[tuple[int, int, str]]: ...
