"""ClickHouse's log of block names, damaged: what is no line goes, what is one stays."""

import random
from pathlib import Path

import pytest

from storage.deduplication_log import repair
from tests.support.damage import DAMAGES, Damage

LINES = [f"1\t20260101_{number}_{number}_0\tred_10s:otlp_spans:0:{number}\n" for number in range(200)]


def make(folder: Path) -> Path:
    table = folder / "store" / "abc" / "abc-1"
    (table / "deduplication_logs").mkdir(parents=True)
    for number in range(200):
        (table / f"20260101_{number}_{number}_0").mkdir()
    log = table / "deduplication_logs" / "deduplication_log_1.txt"
    log.write_text("".join(LINES))
    return log


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("seed", range(5))
def test_garbled_lines_go_and_the_others_stay(
    tmp_path: Path, damage: Damage, seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    log = make(tmp_path)
    damage(log, random.Random(seed))
    before = log.read_bytes().splitlines(keepends=True)
    repair(tmp_path)
    after = log.read_text(encoding="ascii").splitlines(keepends=True)
    assert all(len(line.split("\t")) == 3 and line.endswith("\n") for line in after)
    whole = [line for line in LINES if line.encode() in before]
    assert set(whole) - {LINES[-1]} <= set(after)
    assert "names of blocks are lost" in caplog.text or len(before) - len(after) <= 1
