"""Killing or pausing any part of the distributed system at any moment changes no stored row, and loses
nothing that was acknowledged.
"""

import os
from collections import Counter
from pathlib import Path

import pytest

from tests.e2e.faults.fault_plan import (
    FAULTS,
    LONGEST_PAUSE_S,
    LONGEST_STORE_AWAY_S,
    SHARES,
    Kind,
    Part,
    make_plan,
)
from tests.e2e.faults.faults import run

SEED = int(os.environ.pop("MESHFLOW_FAULT_SEED", "") or 3389)
"""Always the same faults, unless asked otherwise: ``python -m tests.e2e.faults.faults`` looks for new ones.

Of this seed those of brokers, receivers and the store take equally long, so that as many as can be fall
together. """
EACH_ONCE = len(SHARES)
"""``python -m tests.e2e.faults.faults`` does 30, and goes on for as long as it is given."""


def test_a_plan_is_a_function_of_its_seed_and_has_every_fault() -> None:
    plan = make_plan(SEED)
    assert plan == make_plan(SEED)
    assert plan != make_plan(SEED + 1)
    assert Counter((fault.part, fault.kind) for fault in plan) == SHARES
    assert len(plan) == FAULTS
    short = make_plan(SEED, EACH_ONCE)
    assert Counter((fault.part, fault.kind) for fault in short) == dict.fromkeys(SHARES, 1)
    for part in (Part.BROKER, Part.INGEST, Part.WORKER):
        assert (
            max(fault.lasts_s for fault in plan if (fault.part, fault.kind) == (part, Kind.PAUSE))
            == LONGEST_PAUSE_S
        )
    assert max(fault.lasts_s for fault in plan if fault.part is Part.STORE) == LONGEST_STORE_AWAY_S


@pytest.mark.component("kafka")
@pytest.mark.timeout(1800)
async def test_each_fault_under_load_changes_no_stored_row(tmp_path: Path) -> None:
    print(await run(tmp_path, SEED, faults=EACH_ONCE))
