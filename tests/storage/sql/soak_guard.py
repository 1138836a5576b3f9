"""Many random forbidden statements: python -m tests.storage.sql.soak_guard --statements 20000 --seed 1."""

import argparse
import secrets
import tempfile
from pathlib import Path
from random import Random

from tests.storage.sql.forbidden import place, query


def soak(statements: int, seed: int) -> None:
    """Half of the statements on the port that reads, half on the one that writes.

    Raises AssertionError: an effect shows.
    """
    for writable in (False, True):
        with tempfile.TemporaryDirectory() as folder, place(Path(folder), writable=writable) as here:
            random = Random(f"{seed} {writable}")
            for number in range(statements // 2):
                here.check(query(here, random))
                if number % 100 == 0:
                    here.probe()
            here.probe()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--statements", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=secrets.randbits(32))
    chosen = parser.parse_args()
    print(f"seed {chosen.seed}")
    soak(chosen.statements, chosen.seed)
    print(f"{chosen.statements} statements: no effect showed")
