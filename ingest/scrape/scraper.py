"""Asks each target for its page at its own moment of each interval, and sends it on as OTLP.

A page that could not be had, or sent, is not asked for again before its next turn: counters are cumulative,
so the next page has what this one had, and nothing piles up.
"""

import asyncio
import logging
import ssl
import time
from collections.abc import Mapping
from pathlib import Path

import aiohttp

from ingest.scrape.settings import ScrapeSettings
from ingest.scrape.targets import Discovery, Target
from schemas import self_metrics
from schemas.otlp.exposition import MalformedPage, Page, metrics_of
from schemas.units import NS_PER_S, to_ns

_LOGGER = logging.getLogger(__name__)
_ACCEPT = "application/openmetrics-text;version=1.0.0;q=0.9,text/plain;version=0.0.4;q=0.5"
_CHUNK_BYTES = 1 << 16
_PARSERS = 2  # pages that are parsed at the same time: parsing holds the interpreter, and takes memory
_FAILURES = (aiohttp.ClientError, TimeoutError, OSError, MalformedPage, ValueError)


class Scraper:
    """Runs until it is cancelled."""

    def __init__(self, settings: ScrapeSettings) -> None:
        self._settings = settings
        self._discovery = Discovery(settings.groups, settings.max_targets)
        self._interval_ns = to_ns(settings.interval)
        self._room = asyncio.Semaphore(settings.concurrency)
        self._parsing = asyncio.Semaphore(_PARSERS)
        self._unsent = ""
        self._running: dict[Target, asyncio.Task[None]] = {}
        self._down: dict[Target, str] = {}

    async def run(self) -> None:
        """Scrape, and look for changed targets every ``refresh``."""
        context = ssl.create_default_context(cafile=self._settings.ca or None)
        timeout = aiohttp.ClientTimeout(total=self._settings.timeout.total_seconds())
        async with aiohttp.ClientSession(
            timeout=timeout,
            auto_decompress=False,  # a page that is packed is none: nothing can grow while it is unpacked
            connector=aiohttp.TCPConnector(ssl=context, limit=2 * self._settings.concurrency),
            cookie_jar=aiohttp.DummyCookieJar(),
        ) as session:
            try:
                while True:
                    self._keep(session, await asyncio.to_thread(self._discovery.targets))
                    await asyncio.sleep(self._settings.refresh.total_seconds())
            finally:
                for task in self._running.values():
                    task.cancel()
                await asyncio.gather(*self._running.values(), return_exceptions=True)

    def _keep(self, session: aiohttp.ClientSession, targets: tuple[Target, ...]) -> None:
        """A task for each of the targets, and for no other one."""
        for gone in self._running.keys() - set(targets):
            self._running.pop(gone).cancel()
            self._down.pop(gone, None)
        for target in targets:
            if target in self._running and self._running[target].done():
                error = self._running.pop(target).exception()
                _LOGGER.error("scraping %s ended, and begins again", target.url, exc_info=error)
            if target not in self._running:
                self._running[target] = asyncio.create_task(self._again_and_again(session, target))
        self_metrics.SCRAPE_TARGETS.set(len(self._running))

    async def _again_and_again(self, session: aiohttp.ClientSession, target: Target) -> None:
        while True:
            now_ns = time.time_ns()
            await asyncio.sleep((target.due_ns(now_ns, self._interval_ns) - now_ns) / NS_PER_S)
            async with self._room:
                await self._once(session, target)

    async def _once(self, session: aiohttp.ClientSession, target: Target) -> None:
        began_ns, resource = time.time_ns(), dict(target.resource)
        try:
            page = await self._ask(session, target, began_ns)
            own = {"up": 1, **_seconds_since(began_ns)}
            async with self._parsing:
                payload, samples = await asyncio.to_thread(
                    metrics_of, page, resource, own, self._settings.max_samples
                )
            self._say(target, "")
        except _FAILURES as error:
            self._say(target, _reason(error))
            self_metrics.SCRAPES.labels("failed").inc()
            nothing = Page("", False, began_ns)
            payload, samples = metrics_of(nothing, resource, {"up": 0, **_seconds_since(began_ns)}, 1)
        else:
            self_metrics.SCRAPES.labels("ok").inc()
            self_metrics.SCRAPE_SAMPLES.inc(samples)
        await self._send(session, payload)

    async def _ask(self, session: aiohttp.ClientSession, target: Target, time_ns: int) -> Page:
        headers = {
            "Accept": _ACCEPT,
            "Accept-Encoding": "identity",
            "X-Prometheus-Scrape-Timeout-Seconds": str(self._settings.timeout.total_seconds()),
        }
        async with session.get(target.url, headers=headers, allow_redirects=False) as response:
            if response.status != 200:
                raise MalformedPage(f"it answered with status {response.status}")
            if response.headers.get("Content-Encoding", "identity").lower() != "identity":
                raise MalformedPage("it answered packed, without having been asked to")
            body = bytearray()
            async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
                body += chunk
                if len(body) > self._settings.max_page:
                    raise MalformedPage(f"its page is larger than {self._settings.max_page} bytes")
            return Page(body.decode(), "openmetrics" in response.content_type, time_ns)

    async def _send(self, session: aiohttp.ClientSession, payload: bytes) -> None:
        url = f"{self._settings.endpoint}/v1/metrics"
        try:
            headers = {"Content-Type": "application/x-protobuf", **self._authorization()}
            async with session.post(url, data=payload, headers=headers, allow_redirects=False) as response:
                if response.status == 200:
                    self._say_unsent("")
                    return
                reason = (
                    f"status {response.status}: {(await response.content.read(200)).decode(errors='replace')}"
                )
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            reason = _reason(error)
        self_metrics.SCRAPES_UNSENT.inc()
        self._say_unsent(reason)

    def _say_unsent(self, fault: str) -> None:
        """Log when the receiver takes no pages, for another reason, or takes them again."""
        if fault and fault != self._unsent:
            _LOGGER.warning("the receiver at %s did not take a page: %s", self._settings.endpoint, fault)
        elif self._unsent and not fault:
            _LOGGER.warning("the receiver at %s takes pages again", self._settings.endpoint)
        self._unsent = fault

    def _authorization(self) -> Mapping[str, str]:
        """Raises OSError, ValueError."""
        if not self._settings.token:
            return {}
        return {"Authorization": f"Bearer {Path(self._settings.token).read_text(encoding='utf-8').strip()}"}

    def _say(self, target: Target, fault: str) -> None:
        """Log when a target goes down, is down for another reason, or is up again."""
        before = self._down.get(target, "")
        if fault == before:
            return
        if fault:
            self._down[target] = fault
            _LOGGER.warning("%s cannot be scraped: %s", target.url, fault)
        else:
            del self._down[target]
            _LOGGER.warning("%s is scraped again", target.url)


def _seconds_since(began_ns: int) -> dict[str, float]:
    return {"scrape_duration_seconds": (time.time_ns() - began_ns) / NS_PER_S}


def _reason(error: BaseException) -> str:
    return str(error) or type(error).__name__
