"""Rows of values: the native index, and the one in its place."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors import lookup
from processors.grouping import U64
from processors.lookup import NOWHERE, Index, PlainIndex, rows_of

VALUES = st.lists(st.integers(0, 5) | st.sampled_from([2**63, 2**64 - 1]), max_size=12)


def plain(keys: list[int], asked: list[int]) -> list[int]:
    return [keys.index(value) if value in keys else NOWHERE for value in asked]


def u64(values: list[int]) -> U64:
    return np.array(values, np.uint64)


@given(VALUES, VALUES)
def test_the_first_row_of_each_value_is_found(keys: list[int], asked: list[int]) -> None:
    assert rows_of(u64(keys), u64(asked)).tolist() == plain(keys, asked)
    assert PlainIndex(u64(keys)).find(u64(asked)).tolist() == plain(keys, asked)


def test_an_index_is_asked_again() -> None:
    index = Index(u64([7, 9]))
    assert [index.find(u64([value])).tolist() for value in (9, 8, 7)] == [[1], [NOWHERE], [0]]


def test_columns_may_be_slices_and_read_only() -> None:
    keys = np.arange(10, dtype=np.uint64)[::3]
    keys.flags.writeable = False
    assert rows_of(keys, keys[::-1]).tolist() == [3, 2, 1, 0]


def test_without_the_native_part_a_join_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "_NativeIndex", None)
    assert rows_of(u64([3, 3, 4]), u64([4, 3, 5])).tolist() == [2, 0, NOWHERE]
