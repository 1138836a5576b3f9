"""A real Collector as a client: each compression that its exporters have, and texts that are not UTF-8, which
it hands on as they came.
"""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.support.collector.build import build
from tests.support.collector.running import OTLP, Collector
from tests.support.memory_log import MemoryLog
from tests.support.receiving import export, receiving, span_ids, traces

pytestmark = [
    pytest.mark.component("native"),
    pytest.mark.component("collector"),
    pytest.mark.timeout(2400),
]  # it may have to be built

HTTP = ["gzip", "zstd", "zlib", "deflate", "snappy", "x-snappy-framed", "lz4", "none"]
GRPC = ["gzip", "zstd", "snappy", "none"]
LONG_S = 120.0


@pytest.fixture(scope="module", autouse=True)
def built() -> Path:
    return build()


async def until(happened: Callable[[], bool], collector: Collector) -> None:
    end_s = asyncio.get_running_loop().time() + LONG_S
    while not happened():
        assert asyncio.get_running_loop().time() < end_s, collector.output()[-3000:]
        await asyncio.sleep(0.05)


async def test_each_compression_of_a_collector(tmp_path: Path) -> None:
    logs: dict[str, MemoryLog] = {}
    exporters: dict[str, dict[str, Any]] = {}
    async with AsyncExitStack() as stack:
        for kind, compressions in (("otlp_http", HTTP), ("otlp", GRPC)):
            for compression in compressions:
                name = f"{kind}/{compression}"
                logs[name] = MemoryLog()
                server = await stack.enter_async_context(receiving(logs[name], receiver="native"))
                endpoint = (
                    f"http://127.0.0.1:{server.http_port}"
                    if kind == "otlp_http"
                    else f"127.0.0.1:{server.grpc_port}"
                )
                exporters[name] = {
                    "endpoint": endpoint,
                    "compression": compression,
                    "tls": {"insecure": True},
                }
        config = {
            "receivers": {"otlp": OTLP},
            "exporters": exporters,
            "service": {"pipelines": {"traces": {"receivers": ["otlp"], "exporters": list(exporters)}}},
        }
        collector = Collector(tmp_path, config)
        await asyncio.to_thread(collector.__enter__)
        try:
            async with grpc.aio.insecure_channel(collector.grpc) as channel:
                await export(channel, traces(0, 300, padding=500))
                await export(channel, traces(300, 1).replace(b"GET /", b"caf\xe9!"))
            await until(lambda: all(len(log.span_ids()) >= 301 for log in logs.values()), collector)
        finally:
            await asyncio.to_thread(collector.stop)
    for name, log in logs.items():
        assert sorted(log.span_ids()) == span_ids(0, 301), name
        assert (log.counts("repaired"), log.counts("rejected")) == (1, 0), name
