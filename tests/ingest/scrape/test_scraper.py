"""The scraper against real servers: good targets, and those that do what they should not."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from aiohttp import web
from opentelemetry.proto.metrics.v1.metrics_pb2 import MetricsData

from ingest.scrape.scraper import Scraper
from ingest.scrape.settings import ScrapeSettings

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
PAGE = "# TYPE pushes_total counter\npushes_total 3\n"
LONG_S = 30


@asynccontextmanager
async def served(method: str, path: str, handler: Handler) -> AsyncIterator[int]:
    app = web.Application(client_max_size=1 << 26)
    app.router.add_route(method, path, handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


class Receiver:
    """What a receiver of OTLP/HTTP got: each instance's ``up``, and what else its last page had."""

    def __init__(self) -> None:
        self.status = 200
        self.ups: dict[str, list[float]] = {}
        self.names: dict[str, set[str]] = {}
        self.headers: list[str | None] = []
        self._news = asyncio.Event()

    async def take(self, request: web.Request) -> web.Response:
        self.headers.append(request.headers.get("Authorization"))
        for resource in MetricsData.FromString(await request.read()).resource_metrics:
            attributes = {each.key: each.value.string_value for each in resource.resource.attributes}
            metrics = {metric.name: metric for scope in resource.scope_metrics for metric in scope.metrics}
            instance = attributes["service.instance.id"]
            self.ups.setdefault(instance, []).append(metrics["up"].gauge.data_points[0].as_double)
            self.names[instance] = set(metrics)
        self._news.set()
        return web.Response(status=self.status)

    async def until(self, seen: Callable[[], bool]) -> None:
        async with asyncio.timeout(LONG_S):
            while not seen():
                self._news.clear()
                await self._news.wait()


@asynccontextmanager
async def scraped(receiver: Receiver, targets: list[int], **settings: Any) -> AsyncIterator[None]:
    async with served("POST", "/v1/metrics", receiver.take) as port:
        given = {
            "groups": [{"job": "test", "targets": [f"127.0.0.1:{each}" for each in targets]}],
            "endpoint": f"http://127.0.0.1:{port}",
            "interval": "1s",
            "timeout": "1s",
            "refresh": "1s",
            **settings,
        }
        task = asyncio.create_task(Scraper(ScrapeSettings.model_validate(given)).run())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def good(request: web.Request) -> web.Response:
    return web.Response(text=PAGE)


async def test_a_page_comes_again_and_again_with_the_scrapes_own_metrics() -> None:
    receiver = Receiver()
    async with served("GET", "/metrics", good) as port, scraped(receiver, [port]):
        await receiver.until(lambda: len(receiver.ups.get(f"127.0.0.1:{port}", [])) >= 2)
    assert set(receiver.ups[f"127.0.0.1:{port}"]) == {1}
    assert receiver.names[f"127.0.0.1:{port}"] == {
        "pushes_total", "up", "scrape_duration_seconds", "scrape_samples_scraped",
    }  # fmt: skip


async def endless(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    with suppress(ConnectionError):
        while True:
            await response.write(b"a 1\n" * 10_000)
    return response


async def silent(request: web.Request) -> web.StreamResponse:
    await asyncio.sleep(3600)
    return web.Response()


async def elsewhere(request: web.Request) -> web.StreamResponse:
    raise web.HTTPFound("http://169.254.169.254/latest/meta-data")


async def packed(request: web.Request) -> web.StreamResponse:
    return web.Response(body=b"\x1f\x8b", headers={"Content-Encoding": "gzip"})


async def not_text(request: web.Request) -> web.StreamResponse:
    return web.Response(body=b"a\xff 1\n")


async def html(request: web.Request) -> web.StreamResponse:
    return web.Response(text="<html>login</html>")


async def failing(request: web.Request) -> web.StreamResponse:
    return web.Response(status=503)


@pytest.mark.parametrize("bad", [endless, silent, elsewhere, packed, not_text, html, failing])
async def test_a_target_that_misbehaves_is_down_and_holds_up_no_other(
    bad: Handler, caplog: pytest.LogCaptureFixture
) -> None:
    receiver = Receiver()
    async with (
        served("GET", "/metrics", bad) as bad_port,
        served("GET", "/metrics", good) as port,
        scraped(receiver, [bad_port, port], max_page=1 << 20),
    ):
        ups = receiver.ups
        await receiver.until(
            lambda: bool(ups.get(f"127.0.0.1:{bad_port}")) and len(ups.get(f"127.0.0.1:{port}", [])) >= 2
        )
    assert set(receiver.ups[f"127.0.0.1:{bad_port}"]) == {0}
    assert set(receiver.ups[f"127.0.0.1:{port}"]) == {1}
    assert f"127.0.0.1:{bad_port}/metrics cannot be scraped" in caplog.text


async def test_a_target_that_comes_up_is_up_and_a_receiver_that_fails_ends_nothing() -> None:
    receiver = Receiver()
    down = True

    async def target(request: web.Request) -> web.StreamResponse:
        return await (failing if down else good)(request)

    async with served("GET", "/metrics", target) as port, scraped(receiver, [port]):
        instance = f"127.0.0.1:{port}"
        receiver.status = 503
        await receiver.until(lambda: receiver.ups.get(instance) == [0])
        receiver.status, down = 200, False
        await receiver.until(lambda: 1 in receiver.ups[instance])


async def test_a_task_that_ended_is_begun_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    receiver, faults = Receiver(), [RuntimeError("unforeseen")]
    once = Scraper._once

    async def failing_once(self: Scraper, *arguments: Any) -> None:
        if faults:
            raise faults.pop()
        await once(self, *arguments)

    monkeypatch.setattr(Scraper, "_once", failing_once)
    async with served("GET", "/metrics", good) as port, scraped(receiver, [port]):
        await receiver.until(lambda: bool(receiver.ups))
    assert "ended, and begins again" in caplog.text
    assert "unforeseen" in caplog.text


async def test_a_receiver_that_takes_nothing_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    receiver = Receiver()
    receiver.status = 503
    async with served("GET", "/metrics", good) as port, scraped(receiver, [port]):
        await receiver.until(lambda: len(receiver.headers) >= 3)
    assert caplog.text.count("did not take a page") == 1


async def test_a_token_that_cannot_be_sent_ends_nothing(
    tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    receiver, token = Receiver(), tmp_path / "token"
    token.write_text("two\nlines")

    async def until_logged(text: str) -> None:
        async with asyncio.timeout(LONG_S):
            while text not in caplog.text:  # noqa: ASYNC110 - a log line sets no event
                await asyncio.sleep(0.05)

    async with served("GET", "/metrics", good) as port, scraped(receiver, [port], token=str(token)):
        await until_logged("did not take a page")
        token.write_text("one")
        await receiver.until(lambda: bool(receiver.ups))
    assert "ended, and begins again" not in caplog.text


async def test_the_receivers_token_is_sent_to_it_alone(tmp_path: Any) -> None:
    receiver, shown = Receiver(), []
    token = tmp_path / "token"
    token.write_text("secret\n")

    async def target(request: web.Request) -> web.StreamResponse:
        shown.append(request.headers.get("Authorization"))
        return await good(request)

    async with served("GET", "/metrics", target) as port, scraped(receiver, [port], token=str(token)):
        await receiver.until(lambda: bool(receiver.ups))
    assert receiver.headers[0] == "Bearer secret"
    assert shown[0] is None
