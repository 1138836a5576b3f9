"""Blocks are cut by bytes, and a dictionary's values are repeated for the rows of one block only."""

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from processors.cutting import cut, row_bytes
from schemas.spans import ATTRIBUTES

SCHEMA = pa.schema(
    [
        pa.field("number", pa.uint32(), nullable=False),
        pa.field("name", pa.string(), nullable=False),
        pa.field("attributes", ATTRIBUTES, nullable=False),
        pa.field("values", pa.list_(pa.float64()), nullable=False),
    ]
)
MAPS = st.lists(st.tuples(st.text(max_size=8), st.text(max_size=40)), max_size=3)


@given(
    st.lists(st.tuples(st.integers(0, 2), st.text(max_size=60), st.lists(st.floats(0, 1), max_size=5)), max_size=40),
    st.lists(MAPS, min_size=3, max_size=3),
    st.integers(1, 600),
)  # fmt: skip
def test_blocks_are_bounded_and_together_all_rows(
    rows: list[tuple[int, str, list[float]]], attributes: list[list[tuple[str, str]]], limit: int
) -> None:
    held = pa.DictionaryArray.from_arrays(
        pa.array([row[0] for row in rows], pa.uint32()), pa.array(attributes, ATTRIBUTES)
    )
    table = pa.table(
        {
            "number": pa.array(range(len(rows)), pa.uint32()),
            "name": pa.array([row[1] for row in rows], pa.string()),
            "attributes": held,
            "values": pa.array([row[2] for row in rows], pa.list_(pa.float64())),
        }
    )
    blocks = list(cut(table, SCHEMA, limit))
    assert [number for block in blocks for number in block["number"].to_pylist()] == list(range(len(rows)))
    assert [each for block in blocks for each in block["attributes"].to_pylist()] == [
        attributes[row[0]] for row in rows
    ]
    assert [each for block in blocks for each in block["name"].to_pylist()] == [row[1] for row in rows]
    for block in blocks:
        assert block.schema.equals(SCHEMA)
        block.validate(full=True)
        sizes = np.sum([row_bytes(column.combine_chunks()) for column in block.columns], axis=0)
        assert sizes.sum() - sizes.max(initial=0) <= limit, "one row over the limit at most"


def test_a_large_resource_of_many_rows_is_never_made_at_once() -> None:
    """10 KiB x 100,000 rows are a gigabyte; one block of it is not."""
    held = pa.DictionaryArray.from_arrays(
        pa.array([0] * 100_000, pa.uint32()), pa.array([[("key", "x" * 10_240)]], ATTRIBUTES)
    )
    before = pa.total_allocated_bytes()
    pool = pa.default_memory_pool()
    schema = pa.schema([pa.field("attributes", ATTRIBUTES, nullable=False)])
    rows = largest = 0
    for block in cut(pa.table({"attributes": held}), schema):
        rows += block.num_rows
        largest = max(largest, pool.bytes_allocated() - before)
        del block
    assert rows == 100_000
    assert largest < 256 << 20
