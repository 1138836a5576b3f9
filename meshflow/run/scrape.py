"""``meshflow scrape``: Prometheus' pages of targets to a receiver, as OTLP."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack

from ingest.scrape.scraper import Scraper
from ingest.scrape.targets import Discovery
from meshflow.lifecycle import cancel, failure_of, metrics_port, stop_on_signals
from meshflow.settings import Settings, SettingsInvalid


def run_scrape(settings: Settings, on_ready: Callable[[int, int], None]) -> None:
    """Scrape until SIGINT or SIGTERM; ``on_ready`` gets how many targets there are, and the port of /metrics.

    Raises MeshflowError when it cannot start.
    """
    asyncio.run(_scrape(settings, on_ready))


async def _scrape(settings: Settings, on_ready: Callable[[int, int], None]) -> None:
    stop = stop_on_signals()
    if not settings.scrape.groups:
        raise SettingsInvalid(
            'there is nothing to scrape: name targets in meshflow.toml, [[scrape.groups]] job = "istiod"'
            ' targets = ["istiod.istio-system:15014"]'
        )
    try:
        targets = len(Discovery(settings.scrape.groups, settings.scrape.max_targets).targets())
    except ValueError as error:
        raise SettingsInvalid(f"scrape.groups: {error}") from error
    async with AsyncExitStack() as parts:
        port = await parts.enter_async_context(metrics_port(settings))
        scraping = asyncio.create_task(Scraper(settings.scrape).run(), name="scraping")
        parts.push_async_callback(cancel, scraping)
        on_ready(targets, port)
        stopped = asyncio.create_task(stop.wait())
        done, _ = await asyncio.wait({stopped, scraping}, return_when=asyncio.FIRST_COMPLETED)
        if scraping in done:
            raise failure_of(scraping)
