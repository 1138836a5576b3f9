"""How many connections fit into the files that a process may have open."""

import logging
import resource

import pytest

from ingest.descriptors import OTHER_FILES, fitted
from ingest.settings import IngestSettings

SETTINGS = IngestSettings(max_connections=3000, max_http_connections=1000)


class Limits:
    """The process's, as ``resource`` has them."""

    def __init__(self, soft: int, hard: int, most: int = 1 << 30) -> None:
        self.now = (soft, hard)
        self._most = most

    def get(self, _which: int) -> tuple[int, int]:
        return self.now

    def set(self, _which: int, limits: tuple[int, int]) -> None:
        if limits[0] > self._most:
            raise ValueError("not allowed")
        self.now = limits


@pytest.mark.parametrize(
    ("limits", "soft", "connections"),
    [
        (Limits(1024, 1 << 20), 4000 + OTHER_FILES, (3000, 1000)),
        (Limits(1024, resource.RLIM_INFINITY), 4000 + OTHER_FILES, (3000, 1000)),
        (Limits(resource.RLIM_INFINITY, resource.RLIM_INFINITY), resource.RLIM_INFINITY, (3000, 1000)),
        (Limits(1 << 16, 1 << 16), 1 << 16, (3000, 1000)),
        (Limits(1024, 2000 + OTHER_FILES), 2000 + OTHER_FILES, (1500, 500)),
        (Limits(1024, 1 << 20, most=2048), 1024, (384, 128)),
        (Limits(100, 100), 100, (37, 12)),
    ],
    ids=[
        "raised",
        "raised from infinity",
        "no limit",
        "high enough",
        "hard limit",
        "may not raise",
        "very low",
    ],
)
def test_connections_fit_the_limit_of_files(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    limits: Limits,
    soft: int,
    connections: tuple[int, int],
) -> None:
    monkeypatch.setattr(resource, "getrlimit", limits.get)
    monkeypatch.setattr(resource, "setrlimit", limits.set)
    with caplog.at_level(logging.WARNING):
        fits = fitted(SETTINGS)
    assert (fits.max_connections, fits.max_http_connections) == connections
    assert limits.now[0] == soft
    assert bool(caplog.records) == (connections != (3000, 1000)), "less than what was asked for is said"
