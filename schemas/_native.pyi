"""The Rust crate ``native/``; may be absent. Buffers are those of Arrow arrays, in the order of the schemas in ``schemas.spans``."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
from typing_extensions import Buffer

_Batch: TypeAlias = tuple[int, list[Buffer]]
_Parts: TypeAlias = tuple[dict[int, bytes], int, int, int]

class Decoder:
    def __new__(
        cls,
        span_keys: Mapping[str, Sequence[str]],
        resource_keys: Mapping[str, Sequence[str]],
        unknown_service: str,
        no_flags: str,
        upper_ns: Sequence[int],
        malformed: type[Exception],
    ) -> Decoder: ...
    def decode_spans(self, payloads: Sequence[bytes], extra_keys: Sequence[str]) -> tuple[_Batch, _Batch, _Batch, list[Buffer]]: ...
    def decode_details(self, payloads: Sequence[bytes], positions: tuple[np.ndarray, np.ndarray, np.ndarray]) -> list[Buffer]: ...
    def split_spans(self, request: bytes, partitions: int) -> _Parts: ...
    def split_metrics(self, request: bytes, partitions: int) -> _Parts: ...
    def split_logs(self, request: bytes, partitions: int) -> _Parts: ...

def descriptors() -> dict[str, dict[int, str]]: ...
