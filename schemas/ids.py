"""Partitions of ids and resources.

Which partition a trace belongs to is written in the log for ever: these functions must never change. Both
decoders implement them.

The hash is MurmurHash3's 64-bit finalizer (Appleby, public domain), chained over both halves of the trace id.
All input bits move all output bits, so traces sampled by the low 56 bits of their id (consistent probability
sampling), and ids that are 64-bit with a zero high half (B3), are spread evenly too.
"""

from collections.abc import Iterable

_MASK = 2**64 - 1
_FNV_OFFSET = 0xCBF29CE484222325
_FNV_PRIME = 0x100000001B3


def mix(value: int) -> int:
    """MurmurHash3's fmix64 of a uint64."""
    value ^= value >> 33
    value = value * 0xFF51AFD7ED558CCD & _MASK
    value ^= value >> 33
    value = value * 0xC4CEB9FE1A85EC53 & _MASK
    return value ^ value >> 33


def trace_partition(trace_id: bytes, partitions: int) -> int:
    """The partition of a 16-byte trace id: ``mix(high ^ mix(low)) % partitions``, the halves read as
    big-endian.
    """
    high, low = int.from_bytes(trace_id[:8], "big"), int.from_bytes(trace_id[8:], "big")
    return mix(high ^ mix(low)) % partitions


def resource_partition(attributes: Iterable[bytes], partitions: int) -> int:
    """The partition of a resource, given the bytes of its KeyValue messages.

    The order of attributes makes no difference (Envoy's is random): ``mix(sum of mix(FNV-1a of each))``.
    """
    total = sum(mix(_fnv1a(attribute)) for attribute in attributes) & _MASK
    return mix(total) % partitions


def is_valid(id_: bytes, length: int) -> bool:
    """Whether an id has its ``length`` (trace 16, span 8) and a byte other than zero, as OTLP demands."""
    return len(id_) == length and any(id_)


def _fnv1a(data: bytes) -> int:
    state = _FNV_OFFSET
    for byte in data:
        state = (state ^ byte) * _FNV_PRIME & _MASK
    return state
