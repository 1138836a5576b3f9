"""Damage to files, as disks and people do it, each a function of a seed."""

import random
from collections.abc import Callable
from pathlib import Path

Damage = Callable[[Path, random.Random], None]


def flip(file: Path, chance: random.Random) -> None:
    """A few bytes anywhere."""
    with file.open("r+b") as stream:
        for _ in range(chance.randint(1, 20)):
            at = chance.randrange(file.stat().st_size)
            stream.seek(at)
            byte = stream.read(1)[0]
            stream.seek(at)
            stream.write(bytes([byte ^ chance.randint(1, 255)]))


def zero(file: Path, chance: random.Random) -> None:
    """A run of zeros anywhere, as a hole in the disk."""
    size = file.stat().st_size
    length = min(size, chance.choice((512, 4096, 16384, 100_000)))
    with file.open("r+b") as stream:
        stream.seek(chance.randrange(size - length + 1))
        stream.write(bytes(length))


def garble(file: Path, chance: random.Random) -> None:
    """Random bytes over a block, the first one more often than others."""
    size = file.stat().st_size
    length = min(size, 16384)
    with file.open("r+b") as stream:
        stream.seek(0 if chance.random() < 0.4 else chance.randrange(size - length + 1))
        stream.write(chance.randbytes(length))


def truncate(file: Path, chance: random.Random) -> None:
    """The end is gone, perhaps all of it."""
    size = file.stat().st_size
    with file.open("r+b") as stream:
        stream.truncate(0 if chance.random() < 0.2 else chance.randrange(size))


DAMAGES: tuple[Damage, ...] = (flip, zero, garble, truncate)
