"""``make demo`` as CI runs it: it ends by itself and shows services and edges of the captured mesh."""

import os
import subprocess
import sys
from pathlib import Path

from tests.support.up import ROOT


def test_demo_shows_services_and_edges_and_ends(tmp_path: Path) -> None:
    environ = {**os.environ, "DEMO_SECONDS": "25", "PYTHONPATH": str(ROOT), "COLUMNS": "160"}
    done = subprocess.run(
        [sys.executable, "-m", "meshflow.tools.demo"],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for shown in ("Services", "order-service", "Edges", "front-proxy", "product-service", "SQL to try"):
        assert shown in done.stdout
    commands = [line for line in done.stdout.splitlines() if " query --data " in line]
    assert len(commands) >= 3
    for command in commands:
        answer = subprocess.run(
            ["bash", "-c", command],
            cwd=tmp_path,
            env=environ,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert (answer.returncode, len(answer.stdout.splitlines()) > 1) == (0, True), (command, answer.stderr)
