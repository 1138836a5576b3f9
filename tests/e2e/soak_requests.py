"""Mutated requests against a running ``meshflow up``: ``python -m tests.e2e.soak_requests --requests 100000
--seed N``.

While they come the process stays alive, its memory (and that of its children) bounded, and a probe, a whole
span sent after each hundred, is stored. At the end the ledger has each item that was acknowledged or counted
as rejected, once. Prints seed, rate and peak; ends with 1 and the reason where something breaks.
"""

import argparse
import asyncio
import gzip
import os
import secrets
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import grpc
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from ingest.http.unpacking import gunzip
from schemas import otlp, topics
from schemas.errors import MeshflowError
from schemas.otlp import json as otlp_json
from tests.e2e.mutated_requests import GRPC, JSON, NAMES, Mutated, mutate, read_captures
from tests.support.receiving import LOGS, METRICS, TRACES
from tests.support.up import KEEP_ALL, Up

METHODS = {topics.SPANS: TRACES, topics.METRICS: METRICS, topics.LOGS: LOGS}
HUNDRED = 100
IN_FLIGHT = 8
ANSWER_S = 60
"""How long an answer may take on a busy machine."""

MAX_MESSAGE = 64 << 20
MOST_BYTES = 3 << 30
"""Memory of all processes."""

PROBES = 1 << 40
"""The span id of the first probe; the captures' are random."""

CONFIG = "[processing]\npartitions = 2\n" + KEEP_ALL
ARGUMENTS = ("--pane", "4s", "--wait", "1")
"""Few panes: on a busy machine each takes its time."""

SILENCE_S = 120
"""How long nothing may happen before that is a fault."""


class Broken(Exception):
    """What was promised did not hold."""


class Soak:
    """A campaign against ``up``."""

    def __init__(self, up: Up, seed: int) -> None:
        self._up = up
        self._seed = seed
        self._captures = read_captures()
        self.sent = 0
        self.probes = 0
        self.statuses: Counter[str] = Counter()
        self.counted: Counter[str] = Counter()
        """Items that the ledger must have, by topic."""
        self.peak_bytes = 0

    async def run(self, requests: int) -> None:
        """Send so many. Raises Broken."""
        options = [("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
        async with (
            grpc.aio.insecure_channel(self._up.grpc, options=options) as channel,
            aiohttp.ClientSession(self._up.http, timeout=aiohttp.ClientTimeout(ANSWER_S)) as session,
        ):
            calls = {topic: channel.unary_unary(method) for topic, method in METHODS.items()}
            while self.sent < requests:
                hundred = range(self.sent, min(self.sent + HUNDRED, requests))
                numbers = iter(hundred)
                await asyncio.gather(*(self._send_some(numbers, calls, session) for _ in range(IN_FLIGHT)))
                self.sent += len(hundred)
                await self._probe(calls)
                await asyncio.to_thread(self._check, self.sent % 1000 == 0 or self.sent == requests)

    async def _send_some(
        self, numbers: Iterator[int], calls: dict[str, Any], session: aiohttp.ClientSession
    ) -> None:
        for number in numbers:
            request = mutate(self._captures, self._seed + number)
            try:
                outcome = await self._send(request, calls, session)
            except Exception as error:
                raise Broken(f"seed {self._seed + number} ({request.protocol}): {error!r}") from error
            self.statuses[outcome] += 1
            if outcome in ("grpc INTERNAL", "grpc UNKNOWN", "http 500"):
                raise Broken(f"seed {self._seed + number}: {outcome}")
            if outcome in ("grpc OK", "http 200"):
                self.counted[request.topic] += items(request)

    async def _send(self, request: Mutated, calls: dict[str, Any], session: aiohttp.ClientSession) -> str:
        if request.protocol == GRPC:
            compression = grpc.Compression.Gzip if request.is_packed else None
            try:
                await calls[request.topic](request.plain, compression=compression, timeout=ANSWER_S)
            except grpc.aio.AioRpcError as error:
                return f"grpc {error.code().name}"
            return "grpc OK"
        headers = {"Content-Type": f"application/{'json' if request.protocol == JSON else 'x-protobuf'}"}
        if request.is_packed:
            headers["Content-Encoding"] = "gzip"
        path = f"/v1/{NAMES[request.topic]}"
        async with session.post(path, data=request.body, headers=headers) as response:
            await response.read()
            return f"http {response.status}"

    async def _probe(self, calls: dict[str, Any]) -> None:
        self.probes += 1
        await calls[topics.SPANS](probe(self.probes), timeout=ANSWER_S)
        self.counted[topics.SPANS] += 1

    def _check(self, wait: bool) -> None:
        """The processes live within their memory; where it may take a while, each probe is stored, too."""
        self.peak_bytes = max(self.peak_bytes, memory_bytes(self._up.pid))
        if self.peak_bytes > MOST_BYTES:
            raise Broken(f"{self.peak_bytes >> 20:,} MiB of memory after {self.sent:,} requests")
        seen, end_s = -1, 0.0
        while wait and (stored := self._stored()) != self.probes:
            panes = self._up.count("SELECT sum(received) FROM ledger")
            if panes != seen:  # on a busy machine it may take long, but it goes on
                seen, end_s = panes, time.monotonic() + SILENCE_S
            if time.monotonic() > end_s:
                raise Broken(f"{stored} of {self.probes} probes are stored after {self.sent:,} requests")
            time.sleep(0.5)

    def _stored(self) -> int:
        first, last = (f"{PROBES + number:016x}" for number in (1, self.probes))
        return self._up.count(
            f"SELECT uniqExact(SpanId) FROM otel_traces WHERE SpanId BETWEEN '{first}' AND '{last}'"
            " AND ServiceName = 'probe'"
        )

    def settle(self) -> None:
        """The ledger balances. Raises Broken."""
        for topic in topics.TOPICS:
            seen, end_s = -1, 0.0
            while (ledger := self._up.ledger(topic))["received"] < self.counted[topic]:
                if ledger["received"] != seen:
                    seen, end_s = ledger["received"], time.monotonic() + SILENCE_S
                if time.monotonic() > end_s:
                    break
                time.sleep(0.5)
            fates = sum(
                ledger[fate]
                for fate in ("rejected", "duplicate", "kept", "dropped", "aggregated", "left_out")
            )
            if ledger["received"] != fates:
                raise Broken(f"{topic}: received is not the sum of what became of it: {ledger}")
            if ledger["received"] != self.counted[topic] or ledger["lost"]:
                raise Broken(f"{topic}: {self.counted[topic]:,} items were acknowledged: {ledger}")


def probe(number: int) -> bytes:
    """A whole span that ended now."""
    data = TracesData()
    resource = data.resource_spans.add()
    resource.resource.attributes.add(key="service.name").value.string_value = "probe"
    now_ns = time.time_ns()
    resource.scope_spans.add().spans.add(
        trace_id=secrets.token_bytes(16),
        span_id=(PROBES + number).to_bytes(8),
        name="probe",
        start_time_unix_nano=now_ns - 1_000_000,
        end_time_unix_nano=now_ns,
    )
    return data.SerializeToString()


def items(request: Mutated) -> int:
    """How many items the receiver found in a request that it acknowledged, rejected ones included."""
    body: bytes | otlp.Mended = request.body
    try:
        if request.protocol == GRPC:
            body = request.plain
        elif request.is_packed:
            body = gunzip(request.body, MAX_MESSAGE)
        if request.protocol == JSON and isinstance(body, bytes):
            body = otlp_json.to_protobuf(request.topic, body)
        split = otlp.split(request.topic, body, 1)
    except (MeshflowError, gzip.BadGzipFile) as error:
        raise Broken(f"acknowledged, but {error}") from error
    return split.items + split.rejected


def memory_bytes(pid: int) -> int:
    """Resident memory of a process and its children."""
    total = 0
    try:
        total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        raise Broken(f"process {pid} has ended") from None
    return total + sum(memory_bytes(int(child)) for child in children)


def campaign(folder: Path, requests: int, seed: int) -> Soak:
    """A whole one. Raises Broken."""
    up = Up(folder, CONFIG, *ARGUMENTS)
    try:
        up.start()
        soak = Soak(up, seed)
        try:
            asyncio.run(soak.run(requests))
            soak.settle()
        except AssertionError as error:
            raise Broken(str(error)) from error
        if up.stop() != 0:
            raise Broken("`meshflow up` did not stop as it should")
        return soak
    finally:
        up.stop(signal.SIGKILL)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description="Mutated requests against a running `meshflow up`.")
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=None, help="of the first request (default: any)")
    options = parser.parse_args()
    seed = secrets.randbits(40) if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="meshflow-soak-") as folder:
        try:
            soak = campaign(Path(folder), options.requests, seed)
        except Broken as broken:
            print((Path(folder) / "up.log").read_text(errors="replace")[-3000:], file=sys.stderr)
            print(f"broken (seed {seed}): {broken}", file=sys.stderr)
            sys.exit(1)
    took_s = time.monotonic() - began_s
    print(
        f"{soak.sent:,} requests in {took_s:,.0f} s ({soak.sent / took_s:,.0f}/s), peak"
        f" {soak.peak_bytes >> 20:,} MiB, {soak.probes:,} probes stored, {dict(soak.counted)} items in the"
        f" ledger; answers: {dict(soak.statuses.most_common())}"
    )


if __name__ == "__main__":
    main()
