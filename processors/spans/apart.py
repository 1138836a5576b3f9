"""Which spans are counted apart from rates: requests that a fault filter delayed or answered, and mirrored
ones, whatever was injected into them.
"""

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow.compute as pc

from processors.limits import Codes, Labels

APART = ("", "injected", "mirrored")
"""``apart`` of RED and edges, by index. Of the two ends of a call the larger index counts."""
_INJECTED, _MIRRORED = 1, 2
_FLAGS = r"(^|,)(DI|FI)(,|$)"
"""Envoy's response flags of injected faults."""


def apart_of(spans: pl.DataFrame, flags: Codes, labels: Labels) -> npt.NDArray[np.uint8]:
    """The index of APART of each span. ``spans``: column ``mirrored``; ``flags``: label codes of their
    response flags, each distinct text of which is read once.
    """
    used = np.zeros(len(labels.strings), np.bool_)
    used[flags] = True
    codes = np.flatnonzero(used)
    index = np.zeros(len(labels.strings), np.uint8)
    index[codes] = np.asarray(pc.match_substring_regex(labels.text(codes), _FLAGS)) * np.uint8(_INJECTED)
    apart: npt.NDArray[np.uint8] = index[flags]
    apart[spans["mirrored"].to_numpy()] = _MIRRORED
    return apart
