"""``deploy/local.sh``: the whole distributed system as processes, from Kafka to an answer."""

import signal
import subprocess
from pathlib import Path

import pytest

from tests.deploy.compose import DEPLOY
from tests.support.up import eventually

pytestmark = [pytest.mark.component("kafka"), pytest.mark.timeout(900)]

START_S = 300.0


def launch(folder: Path, output: Path, *options: str) -> "subprocess.Popen[bytes]":
    with output.open("wb") as log:
        return subprocess.Popen([DEPLOY / "local.sh", *options, "--folder", folder], stdout=log, stderr=log)


def left_of(folder: Path) -> list[str]:
    """Command lines of processes that work in a folder."""
    lines = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            lines.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:  # it has just ended
            continue
    return [line for line in lines if str(folder) in line]


def test_the_captured_mesh_gives_envoys_own_numbers(tmp_path: Path) -> None:
    output = tmp_path / "output"
    check = launch(tmp_path / "system", output, "--check")
    try:
        assert check.wait(850) == 0, output.read_text()
    finally:
        check.kill()
    assert output.read_text().endswith("as Envoy counted it\n")
    assert left_of(tmp_path / "system") == []


def test_ctrl_c_ends_all_of_it(tmp_path: Path) -> None:
    output = tmp_path / "output"
    shown = launch(tmp_path / "system", output, "--free-ports")
    try:
        eventually(
            lambda: "Ctrl-C ends it." in output.read_text(),
            lambda: f"all of it runs: {output.read_text()}",
            START_S,
        )
        assert len(left_of(tmp_path / "system")) >= 7
        shown.send_signal(signal.SIGINT)
        assert shown.wait(START_S) == 0, output.read_text()
    finally:
        shown.kill()
    assert "\nended\n" in output.read_text()
    assert left_of(tmp_path / "system") == []
