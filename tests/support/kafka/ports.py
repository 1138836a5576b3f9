"""Ports that stay one's own while nothing listens on them, so that a process which was killed gets its port
again.
"""

import fcntl
import os
import random
import socket
import tempfile
from pathlib import Path

_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_random = random.SystemRandom()
_held: list[int] = []
"""Descriptors of locks, kept until this process ends."""


def reserve_port() -> int:
    """A free port that no client's connection is given and no other test run takes while this process
    lives.
    """
    first_of_clients = int(_RANGE.read_text().split()[0]) if _RANGE.exists() else 32_768
    while True:
        port = _random.randrange(10_000, max(first_of_clients, 11_000))
        lock = os.open(
            Path(tempfile.gettempdir()) / f"meshflow-test-port-{port}.lock",
            os.O_CREAT | os.O_RDWR | os.O_CLOEXEC,
            0o666,
        )
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", port))
        except OSError:
            os.close(lock)
            continue
        _held.append(lock)
        return port
