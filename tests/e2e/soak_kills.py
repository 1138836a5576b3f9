"""``meshflow up`` is killed again and again, and so is its second process, in rounds that are longer than the
tests'.

``python -m tests.e2e.soak_kills --minutes 30`` goes on for so long. It prints the seed of each round.
"""

import argparse
import os
import random
import shutil
import signal
import tempfile
import time
from pathlib import Path

from tests.e2e.test_e2e_kill import CONFIG, QUICK, assert_kills_change_no_row
from tests.e2e.test_e2e_two_processes import assert_crashes_change_no_row
from tests.support.up import running_up

KILLS = 20
CRASHES = (
    *(signal.SIGKILL, signal.SIGKILL, signal.SIGSEGV),
    *(signal.SIGABRT, signal.SIGBUS, signal.SIGTERM, signal.SIGKILL),
)


def crash(folder: Path, seed: int) -> None:
    """The second process ends in each way, in a random order."""
    crashes = random.Random(seed).sample(CRASHES, len(CRASHES))
    with running_up(folder / "up", CONFIG, *QUICK) as up:
        assert_crashes_change_no_row(folder / "undisturbed", up, crashes, seed)


def main() -> None:
    """Rounds until the time is over, at least one of each kind. Raises AssertionError."""
    parser = argparse.ArgumentParser(description="meshflow up under kill -9")
    parser.add_argument("--minutes", type=float, default=0.0, help="default: one round of each kind")
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(3)))
    options = parser.parse_args()
    end_s, rounds = time.monotonic() + 60 * options.minutes, 0
    while rounds == 0 or time.monotonic() < end_s:
        seed = options.seed + rounds
        folder = Path(tempfile.mkdtemp(prefix="meshflow-kills-"))  # it stays when something fails
        print(
            f"{KILLS} kills, {len(CRASHES)} crashes of the second process: seed {seed}, {folder}", flush=True
        )
        assert_kills_change_no_row(folder / "kills", KILLS, seed)
        crash(folder / "crashes", seed)
        shutil.rmtree(folder)
        rounds += 1
    print(f"{rounds} rounds of {KILLS} kills and {len(CRASHES)} crashes changed no row")


if __name__ == "__main__":
    main()
