"""/metrics of two processes on one port: each family is one process's alone."""

from collections.abc import Awaitable, Callable, Iterator

from prometheus_client import REGISTRY, CollectorRegistry, Metric, ProcessCollector, generate_latest

_RECEIVING = ("meshflow_ingest_", "meshflow_log_", "meshflow_up_")
"""What names of families begin with that the receiving process counts; all others are of the processing one.
"""
_OWN_PROCESS = "meshflow_receiving"
"""``meshflow_receiving_process_*``: CPU, memory and files of the receiving process."""


class _Families:
    """Some of the default registry's families."""

    def __init__(self, wanted: Callable[[str], bool]) -> None:
        self._wanted = wanted

    def collect(self) -> Iterator[Metric]:
        """See prometheus_client.registry.Collector."""
        return (family for family in REGISTRY.collect() if self._wanted(family.name))


def make_receiving() -> Callable[[], bytes]:
    """What the receiving process says of itself, each time it is called."""
    registry = CollectorRegistry()
    registry.register(_Families(lambda name: name.startswith(_RECEIVING)))
    ProcessCollector(namespace=_OWN_PROCESS, registry=registry)
    return lambda: generate_latest(registry)


def make_joined(receiving: Callable[[], Awaitable[bytes]]) -> Callable[[], Awaitable[bytes]]:
    """What the processing process says of both."""
    registry = CollectorRegistry()
    registry.register(_Families(lambda name: not name.startswith(_RECEIVING)))

    async def joined() -> bytes:
        return await receiving() + generate_latest(registry)

    return joined
