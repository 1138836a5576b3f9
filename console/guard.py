"""The checks that every request to SQL or /metrics passes, the headers that every answer carries, and the log
of requests that are no HTTP.
"""

import logging
from collections.abc import Callable

from aiohttp import web
from aiohttp.http import HttpProcessingError, HttpVersion10
from aiohttp.typedefs import Handler, Middleware

from console.names import MISDIRECTED, SAFE_HEADERS, Names
from schemas import self_metrics

protocol_log = logging.getLogger("console.http")
"""aiohttp's logger of requests that it cannot read, without the requests: their headers have passwords."""


def make_guard(names: Names, begun: Callable[[web.Request], None]) -> Middleware:
    """Refuse requests to names that are not ours, and of web pages that are not ours. ``begun`` is called
    with each request.
    """

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        begun(request)
        if request.version < HttpVersion10:
            return web.Response(status=505, text="HTTP/1.0 or HTTP/1.1 is spoken here\n")
        hosts = request.headers.getall("Host", [])
        if not request.raw_path.startswith("/"):  # GET http://host/: stands above the header
            hosts = [*hosts, request.host]
        refusal = names.refusal(
            hosts, request.headers.getall("Origin", []), request.headers.getall("Sec-Fetch-Site", [])
        )
        if refusal is None:
            return await handler(request)
        self_metrics.SQL_FOREIGN.inc()
        status, reason = refusal
        words = "Misdirected Request" if status == MISDIRECTED else None
        return web.Response(status=status, reason=words, text=f"{reason}\n")

    return guard


async def set_safe_headers(_: web.Request, response: web.StreamResponse) -> None:
    """Add what browsers heed, unless the answer has its own."""
    for name, value in SAFE_HEADERS.items():
        response.headers.setdefault(name, value)


def _without_request(record: logging.LogRecord) -> bool:
    """Count a request that is not HTTP instead of logging it: the error quotes it."""
    error = record.exc_info[1] if record.exc_info else None
    if not isinstance(error, HttpProcessingError):
        return True
    self_metrics.SQL_MALFORMED.inc()
    return False


protocol_log.addFilter(_without_request)
