"""The captured mesh in a running ``meshflow up``."""

from collections.abc import Iterator

import pytest

from tests.support.captured_mesh import SPANS, TRACES, truth
from tests.support.up import Up, eventually, replay, running_up


@pytest.fixture(scope="package")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """All of its requests and calls are counted, as of now."""
    with running_up(tmp_path_factory.mktemp("mesh"), "", "--pane", "500ms", "--wait", "1") as up:
        replay(up, TRACES, options=("--now",))
        up.wait_for(SPANS)
        requests, calls = (sum(counts.values()) for counts in truth())

        def counted() -> list[int]:
            return [
                up.count("SELECT sum(requests) FROM service_traffic"),
                up.count("SELECT sum(calls) FROM edge_traffic"),
            ]

        eventually(lambda: counted() == [requests, calls], lambda: f"{[requests, calls]}: {counted()}")
        yield up
