"""The SQL port: ClickHouse's HTTP interface and /metrics, on aiohttp."""

import asyncio
import logging
import socket
import time
import uuid
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from console import account
from console.clickhouse import compressed as blocks
from console.clickhouse import interface as clickhouse
from console.clickhouse import native_format as native
from console.clickhouse.body import NOTHING, Body, Sizes, read_body, too_large
from console.clickhouse.insert import reads
from console.settings import ConsoleSettings
from schemas import self_metrics
from schemas.errors import AddressInUse, QueryFailed
from schemas.sql import Answer, Engine, Limits, Query

logger = logging.getLogger(__name__)

_FINISH_WRITES_S = 60.0
"""How long answers of what writes are waited for when the server stops."""


class SqlServer:
    """Answers SQL and /metrics while it runs. One event loop's; queries run in threads.

    With a folder for the rows of inserts (``rows_folder``), statements may write, if the engine lets them.
    """

    def __init__(self, settings: ConsoleSettings, engine: Engine, rows_folder: Path | None = None) -> None:
        self._settings = settings
        self._engine = engine
        self._rows_folder = rows_folder
        self._sizes = Sizes(settings.max_request_size, settings.max_insert_size)
        self._writers = ThreadPoolExecutor(settings.max_writes, "sql-write")
        self._limits = Limits(
            settings.max_query_time.total_seconds(),
            settings.max_query_memory,
            settings.max_query_threads,
            settings.max_result_size,
        )
        self._threads = ThreadPoolExecutor(settings.max_queries, "sql")
        self._under_way = 0
        self._timezone = time.tzname[0]
        self._runner: web.AppRunner | None = None
        self.port = settings.sql_port

    async def start(self) -> None:
        """Listen; :attr:`port` is then the real port. Raises AddressInUse."""
        app = web.Application(client_max_size=self._settings.max_request_size)
        app.router.add_get("/ping", _alive)
        app.router.add_get("/replicas_status", _alive)
        app.router.add_get("/metrics", _metrics)
        app.router.add_route("*", "/", self._answer)
        listener = _listen(self._settings.host, self._settings.sql_port)
        self.port = listener.getsockname()[1]
        self._runner = web.AppRunner(
            app, access_log=None, shutdown_timeout=_FINISH_WRITES_S if self._rows_folder else 1.0
        )
        await self._runner.setup()
        await web.SockSite(self._runner, listener).start()

    async def stop(self) -> None:
        """Close the port, end the queries that run, and finish what writes."""
        closing = asyncio.create_task(self._runner.cleanup()) if self._runner else None
        self._threads.shutdown(wait=False, cancel_futures=True)
        await asyncio.to_thread(self._engine.interrupt)
        if closing:
            await closing
        await asyncio.to_thread(self._threads.shutdown)
        await asyncio.to_thread(self._writers.shutdown)

    async def _answer(self, request: web.Request) -> web.Response:
        query_id = request.query.get("query_id") or str(uuid.uuid4())
        headers = {
            "X-ClickHouse-Query-Id": query_id,
            "X-ClickHouse-Server-Display-Name": "meshflow",
            "X-ClickHouse-Timezone": self._timezone,
        }
        response = await self._respond(request, headers)
        self_metrics.QUERIES.labels(str(response.status)).inc()
        return response

    async def _respond(self, request: web.Request, headers: dict[str, str]) -> web.Response:
        if request.method not in {"GET", "HEAD", "POST"}:
            return web.Response(
                status=501, text=f"{request.method} is not supported; use GET or POST\n", headers=headers
            )
        began_ns = time.perf_counter_ns()
        try:
            account.check(
                request.query,
                request.headers,
                self._settings.username,
                self._settings.password.get_secret_value(),
            )
            parameters = dict(request.query)
            answering = await self._begin(request, parameters)
            if answering is None:
                return web.Response(text="Ok.\n", headers=headers)
            answer = await asyncio.wrap_future(answering)
        except QueryFailed as error:
            headers["X-ClickHouse-Exception-Code"] = str(error.code)
            text = f"{error}\n".encode()
            packed = blocks.pack(text) if request.query.get("compress") == "1" else text
            return web.Response(
                status=clickhouse.status_of(error.code),
                body=packed,
                content_type="text/plain",
                headers=headers,
            )
        headers["X-ClickHouse-Format"] = answer.format
        headers["X-ClickHouse-Summary"] = clickhouse.summary(answer, time.perf_counter_ns() - began_ns)
        headers["Content-Type"] = clickhouse.content_type(answer.format)
        response = web.Response(body=answer.body, headers=headers)
        if parameters.get("enable_http_compression", "1") == "1" and "gzip" in request.headers.get(
            "Accept-Encoding", ""
        ):
            response.enable_compression(web.ContentCoding.gzip)
        return response

    async def _begin(self, request: web.Request, parameters: dict[str, str]) -> "Future[Answer] | None":
        """Read a request and have it answered in a thread, when its turn comes; what is read or waits is
        bounded. None: it asks nothing.

        ``parameters`` is completed by those of a form.
        """
        if self._under_way >= self._settings.max_queries + self._settings.max_waiting_queries:
            reason = f"{self._under_way} queries are under way already"
            raise clickhouse.failed(
                clickhouse.TOO_MANY_SIMULTANEOUS_QUERIES, "TOO_MANY_SIMULTANEOUS_QUERIES", reason
            )
        self._under_way += 1
        body = NOTHING
        try:
            body = await self._read(request, parameters)
            answering = self._submit(request, parameters, body)
        except BaseException:
            self._done(body)
            raise
        if answering is None:
            self._done(body)
        else:
            loop = asyncio.get_running_loop()
            answering.add_done_callback(lambda _: loop.call_soon_threadsafe(self._done, body))
        return answering

    def _submit(
        self, request: web.Request, parameters: dict[str, str], body: Body
    ) -> "Future[Answer] | None":
        if not body.statement.strip():
            return None
        query = clickhouse.read_query(parameters, request.headers, body.statement, body.rows)
        threads = self._threads if reads(query.sql) or not self._rows_folder else self._writers
        try:
            return threads.submit(self._execute, query, clickhouse.read_packing(parameters))
        except RuntimeError as error:
            raise clickhouse.failed(clickhouse.ABORTED, "ABORTED", "meshflow is stopping") from error

    def _execute(self, query: Query, packing: clickhouse.Packing) -> Answer:
        answer = self._engine.execute(query, self._limits)
        if answer.format == "Native" and packing.revision:
            answer = replace(answer, body=native.frame(answer.body, packing.revision))
        return replace(answer, body=blocks.pack(answer.body)) if packing.blocks else answer

    @property
    def under_way(self) -> int:
        """How many queries are being read, wait or run."""
        return self._under_way

    def _done(self, body: Body) -> None:
        """Nobody needs the request's rows any more."""
        self._under_way -= 1
        body.close()

    async def _read(self, request: web.Request, parameters: dict[str, str]) -> Body:
        """The statement and its rows; parameters of a form are added to those of the URL."""
        form = request.content_type == "multipart/form-data"
        try:
            for name, value in (await request.post()).items() if form else ():
                if not isinstance(value, str):
                    raise clickhouse.failed(
                        clickhouse.UNSUPPORTED, "NOT_IMPLEMENTED", "external tables are not supported here"
                    )
                parameters[name] = value
        except web.HTTPRequestEntityTooLarge as error:
            raise too_large("the query is too large") from error
        if request.method != "POST":
            parameters["readonly"] = "1"  # as ClickHouse: a link that somebody follows changes nothing
        prefix = parameters.get("query", "").encode()
        if request.method != "POST" or form:
            return Body(prefix, None)
        return await read_body(request, prefix, self._sizes, self._rows_folder)


async def _alive(_: web.Request) -> web.Response:
    return web.Response(text="Ok.\n")


async def _metrics(_: web.Request) -> web.Response:
    return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise AddressInUse(
            f"SQL cannot listen on {host}:{port}: {error.strerror}; choose another with --sql-port"
        ) from error
