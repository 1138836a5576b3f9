"""Records of a pane that are not well-formed, mended (``schemas.otlp.mend``). Ingest mends what it receives;
records of foreign writers come as they are.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pyarrow as pa

from schemas.errors import MalformedOtlp
from schemas.otlp import Mended
from schemas.records import Record


def mended(records: Sequence[Record], mend: Callable[[bytes], Mended]) -> tuple[list[Record], int, int]:
    """The records, each with a well-formed payload where it can be mended; the items that were left out; the
    texts and values that were repaired. A function of the records alone.
    """
    kept, dropped, repaired = [], 0, 0
    for record in records:
        try:
            found = mend(record.unpack())
        except MalformedOtlp:  # isolation sets it aside
            kept.append(record)
            continue
        dropped += found.dropped
        repaired += found.repaired
        kept.append(_with(record, found.payload) if found.dropped or found.repaired else record)
    return kept, dropped, repaired


def _with(record: Record, payload: bytes) -> Record:
    """Packed as it was: payloads are held until their pane is decided."""
    packed = pa.compress(payload, codec=record.codec, asbytes=True) if record.codec else payload
    return replace(record, payload=packed, size=len(payload))
