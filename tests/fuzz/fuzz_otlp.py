"""Looks for bytes on which native code and the reference differ: ``python -m tests.fuzz.fuzz_otlp --seconds
60``.

Each input is a function of its seed (grammar noise over OTLP's descriptors, then mutations of it); a
difference is printed with its seed and exits 1. ``cargo fuzz`` would need a nightly compiler, and coverage of
Rust code does not reach atheris; inputs made by the grammar get deep without.
"""

import argparse
import secrets
import sys
import time
from random import Random

from schemas import topics
from tests.schemas.noise import make_noise, mutated
from tests.schemas.twins import compare_all, compare_details


def check(seed: int) -> None:
    """One input and two mutations of it. Raises AssertionError where the decoders differ."""
    random = Random(seed)
    topic = random.choice(topics.TOPICS)
    request = make_noise(random, topic, random.choice([0.0, 0.01]))
    for data in (request, mutated(random, request), mutated(random, request)):
        compare_all(topic, data, random.choice([1, 2, 7, 64]))
        compare_details(data)


def main() -> None:
    """Seeds from ``--seed`` on, for ``--seconds``."""
    parser = argparse.ArgumentParser(description="Compare the OTLP decoders on hostile bytes.")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=None, help="where to begin (default: anywhere)")
    options = parser.parse_args()
    seed = first = secrets.randbits(48) if options.seed is None else options.seed
    end_s = time.monotonic() + options.seconds
    while time.monotonic() < end_s:
        try:
            check(seed)
        except BaseException:  # a panic in Rust is no Exception
            print(
                f"seed {seed}: {sys.executable} -m tests.fuzz.fuzz_otlp --seed {seed} --seconds 0.01",
                file=sys.stderr,
            )
            raise
        seed += 1
    print(f"{3 * (seed - first):,} inputs, no difference (seeds {first} to {seed - 1})")


if __name__ == "__main__":
    main()
