"""The peers benchmark as a program: a few hundred spans through every system that a machine has."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.up import ROOT

pytestmark = [
    pytest.mark.component("loader"),
    pytest.mark.timeout(1200),
]  # the load program may have to be built
SPANS = 600


def run(folder: Path, *chosen: str) -> dict[tuple[str, str], dict[str, float]]:
    """Lines of JSON by case and system."""
    lines = folder / "lines.json"
    options = ["--spans", str(SPANS), "--seconds", "60", "--json", str(lines), "--cases", ",".join(chosen)]
    command = [sys.executable, "-m", "benchmarks.peers.run", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1000, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = {
        (str(line["case"]), str(line["system"])): line
        for line in map(json.loads, lines.read_text().splitlines())
    }
    assert {line["spans"] for line in found.values()} == {SPANS}
    assert all(line["rate_per_s"] > 0 and line["peak_rss_mib"] > 10 for line in found.values())
    return found


def test_meshflows_cases(tmp_path: Path) -> None:
    lines = run(tmp_path, "receive-5 meshflow", "red-214 meshflow", "whole-job-214 meshflow")
    assert {case for case, _ in lines} == {"receive-5", "red-214", "whole-job-214"}
    assert lines["whole-job-214", "meshflow"]["cpu_s_per_million"] > 0


@pytest.mark.component("kafka")
@pytest.mark.component("collector")
def test_the_collectors_cases(tmp_path: Path) -> None:
    lines = run(tmp_path, "receive-214 collector", "kafka-5 collector", "tail-red-5-at-50000 collector")
    assert set(lines) == {
        ("receive-214", "collector"),
        ("kafka-5", "collector"),
        ("tail-red-5-at-50000", "collector"),
    }
