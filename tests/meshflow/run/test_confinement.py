"""Landlock for real, each time in a process of its own: what is not allowed cannot be opened, connected or
run.
"""

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from meshflow.run.confinement import READ, CannotConfine, Rules, confine
from tests.support.up import ROOT

TRIES = """
import encodings.idna, json, os, socket, subprocess, sys
from pathlib import Path
from meshflow.run.confinement import CHANGE, OWN, READ, Rules, confine

own, log, other, port = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
opened = (log / "opened").open("r+")
confine(Rules({own: OWN, log: CHANGE, Path("/proc/self"): READ}, json.loads(sys.argv[5])))

def attempt(work):
    try:
        work()
    except OSError as error:
        return type(error).__name__
    return "done"

def move():
    (own / "made").rename(own / "folder" / "moved")

said = {
    "read a file of others": attempt(lambda: (other / "secret").read_text()),
    "see the names of others": attempt(lambda: os.listdir(other)),
    "write among others": attempt(lambda: (other / "made").write_text("x")),
    "link to a file of others": attempt(lambda: os.link(other / "secret", own / "linked")),
    "read through a symlink": attempt(lambda: (own / "symlink").read_text()),
    "read the system's": attempt(lambda: Path("/etc/hostname").read_text()),
    "read another's environment": attempt(lambda: Path(f"/proc/{os.getppid()}/environ").read_bytes()),
    "signal another": attempt(lambda: os.kill(os.getppid(), 0)),
    "run a program": attempt(lambda: subprocess.run([sys.executable, "-c", ""], check=True)),
    "connect": attempt(lambda: socket.create_connection(("127.0.0.1", port), 5).close()),
    "listen": attempt(lambda: socket.create_server(("127.0.0.1", 0))),
    "make a folder": attempt(lambda: (own / "folder").mkdir()),
    "make a file": attempt(lambda: (own / "made").write_text("x")),
    "move it": attempt(move),
    "remove it": attempt(lambda: (own / "folder" / "moved").unlink()),
    "change the log": attempt(lambda: (log / "opened").write_text("changed")),
    "remove the log": attempt(lambda: (log / "opened").unlink()),
    "use what is open": attempt(lambda: opened.read()),
    "look at itself": attempt(lambda: Path("/proc/self/status").read_text()),
}
confine(Rules({own: OWN}))
said["read what a second call took"] = attempt(lambda: (log / "opened").read_text())
said["read what it left"] = attempt(lambda: (own / "kept").read_text())
print(json.dumps(said))
"""


def tried(folder: Path, *, port_is_named: bool) -> dict[str, str]:
    own, log, other = folder / "own", folder / "log", folder / "other"
    for each in (own, log, other):
        each.mkdir(parents=True)
    (other / "secret").write_text("secret")
    (own / "symlink").symlink_to(other / "secret")
    (own / "kept").write_text("kept")
    (log / "opened").write_text("log")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        ports = json.dumps([port] if port_is_named else [])
        command = [sys.executable, "-c", TRIES, str(own), str(log), str(other), str(port), ports]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    said: dict[str, str] = json.loads(done.stdout)
    return said


@pytest.fixture(autouse=True)
def _kernel_can() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from meshflow.run.confinement import *; confine(Rules({}))"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if "CannotConfine" in done.stderr:
        pytest.skip(done.stderr.splitlines()[-1])


def test_only_what_is_allowed_can_be_done(tmp_path: Path) -> None:
    said = tried(tmp_path, port_is_named=False)
    refused = {what for what, outcome in said.items() if outcome in {"PermissionError", "OSError"}}
    assert refused == {
        *(
            "read a file of others",
            "see the names of others",
            "write among others",
            "link to a file of others",
        ),
        *("read through a symlink", "read the system's", "read another's environment", "signal another"),
        *("run a program", "connect", "listen", "remove the log", "read what a second call took"),
    }
    assert {outcome for what, outcome in said.items() if what not in refused} == {"done"}


def test_a_named_port_can_be_connected_to(tmp_path: Path) -> None:
    assert tried(tmp_path, port_is_named=True)["connect"] == "done"


def test_other_systems_are_not_confined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(CannotConfine, match="darwin has no Landlock"):
        confine(Rules({Path("/"): READ}))
