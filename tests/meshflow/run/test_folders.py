"""The data folder: private, claimed, without what a kill left."""

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshflow.run.folders import claimed, keep_private, temporary_folder
from schemas.errors import LogUnavailable


@pytest.fixture(autouse=True)
def _umask() -> Iterator[None]:
    former = os.umask(0o022)
    yield
    os.umask(former)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_what_is_made_is_this_users_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    keep_private(tmp_path / "a/data", tmp_path / "a/data/log")
    (tmp_path / "a/data/file").write_text("")
    assert [mode(tmp_path / name) for name in ("a", "a/data", "a/data/log")] == [0o700] * 3
    assert mode(tmp_path / "a/data/file") == 0o600
    assert not caplog.records


def test_a_wider_folder_is_narrowed_and_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "data"
    folder.mkdir(mode=0o755)
    with caplog.at_level(logging.WARNING):
        keep_private(folder)
    assert mode(folder) == 0o700
    assert f"{folder} was open to other local users (0755) and is 0700 now" in caplog.text
    caplog.clear()
    keep_private(folder)
    assert not caplog.records


def test_a_wider_folder_of_another_user_is_said_and_left(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "data"
    folder.mkdir(mode=0o750)
    monkeypatch.setattr(os, "geteuid", lambda: folder.stat().st_uid + 1)
    keep_private(folder)
    assert mode(folder) == 0o750
    assert "belongs to another user and is open to others (0750)" in caplog.text


def test_what_a_kill_left_is_removed(tmp_path: Path) -> None:
    left = tmp_path / "tmp/tmpabc.native"
    left.parent.mkdir()
    left.write_text("rows")
    folder = temporary_folder(tmp_path)
    assert folder == tmp_path / "tmp"
    assert mode(folder) == 0o700
    assert not left.exists()


HOLD = "import sys; sys.stdin.read()"


def test_a_claim_lasts_as_long_as_anyone_who_inherited_it(tmp_path: Path) -> None:
    with claimed(tmp_path) as lock:
        heir = subprocess.Popen([sys.executable, "-c", HOLD], pass_fds=(lock,), stdin=subprocess.PIPE)
    with pytest.raises(LogUnavailable, match="an earlier `up`"), claimed(tmp_path, within_s=0.1):
        pass
    heir.kill()
    with claimed(tmp_path):
        heir.communicate()
