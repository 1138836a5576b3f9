"""Ids as OpenTelemetry's tables write them: lowercase hex, whole columns at once."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

_Words = npt.NDArray[np.uint64]

_PAIRS = np.frombuffer("".join(f"{byte:02x}" for byte in range(256)).encode(), dtype=np.uint16)
"""Two hex digits of each byte, as they lie in memory."""


def hex_trace_ids(hi: _Words, lo: _Words) -> pa.StringArray:
    """32 digits of each (hi, lo); "" for the absent id (both 0)."""
    return _hex(np.stack([hi, lo], axis=1))


def hex_span_ids(ids: _Words) -> pa.StringArray:
    """16 digits of each id; "" for the absent one (0)."""
    return _hex(ids.reshape(-1, 1))


def _hex(words: _Words) -> pa.StringArray:
    """Each row's words (big-endian digits) as one text; rows of zeros as "". Raises OverflowError over 2 GiB
    of text.
    """
    rows, width = len(words), words.shape[1] * 16
    present = words.any(axis=1)
    digits = _PAIRS[np.ascontiguousarray(words[present], dtype=">u8").view(np.uint8)]
    offsets = np.zeros(rows + 1, dtype=np.int64)
    np.cumsum(present, out=offsets[1:])
    offsets *= width
    if offsets[-1] > np.iinfo(np.int32).max:
        raise OverflowError(f"{rows} ids do not fit in one Arrow string array; store fewer rows at once")
    return pa.StringArray.from_buffers(
        rows, pa.py_buffer(offsets.astype(np.int32)), pa.py_buffer(np.ascontiguousarray(digits))
    )
