"""Fetches and builds what tests would fetch or build when they first need it: ``python -m tests.prepare``.

CI does so beside the linters: downloads wait for the network, and mypy and ruff leave a core.
"""

from concurrent.futures import ThreadPoolExecutor

from benchmarks.peers import loader
from tests.console import go_client
from tests.support import go, java, node, prometheus
from tests.support.collector import build as collector
from tests.support.kafka import broker

STEPS = (
    collector.build,
    loader.build,
    go_client.build,
    lambda: go.build("go_client"),
    lambda: go.build("telemetrygen"),
    java.build,
    node.build,
    prometheus.build,
)


def main() -> None:
    """Kafka first, whose broker ends with the thread that started it; then two at once. Raises RuntimeError
    with what a step said that failed.
    """
    print("ready:", broker.archive_classes(), flush=True)
    with ThreadPoolExecutor(2) as pool:
        for made in pool.map(lambda step: step(), STEPS):
            print("ready:", made, flush=True)


if __name__ == "__main__":
    main()
