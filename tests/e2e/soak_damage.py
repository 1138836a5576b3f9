"""Random damage to the files of `up`, over and over: python -m tests.e2e.soak_damage --trials 50 --seed 1."""

import argparse
import secrets
import shutil
import tempfile
from pathlib import Path

from tests.e2e.damaged_up import make, trial


def soak(trials: int, seed: int) -> None:
    """Raises AssertionError: a traceback, a hang, an exit code of a fault of ours, or more lines than one."""
    with tempfile.TemporaryDirectory() as folder:
        made = [make(Path(folder) / f"made-{killed}", killed=killed) for killed in (False, True)]
        for number in range(seed, seed + trials):
            place = Path(folder) / str(number)
            trial(made[number % 2], place, number)
            shutil.rmtree(place)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--seed", type=int, default=secrets.randbits(24))
    chosen = parser.parse_args()
    print(f"seed {chosen.seed}")
    soak(chosen.trials, chosen.seed)
    print(f"{chosen.trials} trials: each went on or said why not")
