"""The SQL port: ClickHouse's HTTP interface and /metrics, on aiohttp."""

import asyncio
import logging
import socket
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from aiohttp import web

from console import account
from console.answers import Sending
from console.clickhouse import compressed, native_format
from console.clickhouse import interface as clickhouse
from console.clickhouse.body import Body, Bounds, read_body
from console.clickhouse.insert import reads
from console.clickhouse.request import query_id, read_form, read_parameters
from console.password import check_exposure
from console.port import Exposition, Port, add_metrics, listen_for_sql
from console.room import Pace, Room
from console.settings import ConsoleSettings
from schemas import self_metrics
from schemas.errors import QueryFailed
from schemas.sql import Answer, Engine, Limits, Query

logger = logging.getLogger(__name__)

_FINISH_WRITES_S = 60.0
"""How long answers of what writes are waited for when the server stops."""
_FIRST_WORDS = 4096
"""Characters of a statement that say whether it only reads."""
_WORKERS = 2
"""Threads that pack and unpack bodies."""


class SqlServer:
    """Answers SQL and /metrics while it runs. One event loop's; queries run in threads.

    With a folder for the rows of inserts (``rows_folder``), statements may write, if the engine lets them.
    Raises PortExposed, PasswordUnreadable (console.password).
    """

    def __init__(
        self,
        settings: ConsoleSettings,
        engine: Engine,
        rows_folder: Path | None = None,
        socket_: socket.socket | None = None,
        exposition: Exposition | None = None,
    ) -> None:
        """``socket_`` listens already, instead of one on the settings' port. ``exposition``: what /metrics
        answers, instead of this process's own metrics.
        """
        self._socket = socket_
        self._settings = settings = check_exposure(settings)
        self._engine = engine
        self._rows_folder = rows_folder
        self._limits = Limits(
            settings.max_query_time.total_seconds(),
            settings.max_query_memory,
            settings.max_query_threads,
            settings.max_result_size,
        )
        self._threads = ThreadPoolExecutor(settings.max_queries, "sql")
        self._writers = ThreadPoolExecutor(settings.max_writes, "sql-write")
        self._workers = ThreadPoolExecutor(_WORKERS, "sql-body")
        memory = Room(settings.max_held_size, "console.max_held_size")
        disk = Room(settings.max_insert_size * settings.max_writes, "console.max_insert_size")
        pace = Pace(settings.client_timeout.total_seconds(), settings.min_rate)
        self._bounds = Bounds(
            settings.max_request_size, settings.max_insert_size, pace, memory, disk, self._workers
        )
        self._sending = Sending(memory, pace, self._workers)
        self._under_way = 0
        self._timezone = time.tzname[0]
        self._http = http = Port(settings, _FINISH_WRITES_S if rows_folder else 1.0)
        http.app.router.add_get("/ping", _alive)
        http.app.router.add_get("/replicas_status", _alive)
        http.app.router.add_route("*", "/", self._answer)
        add_metrics(http.app, exposition)
        self.port = settings.sql_port

    async def start(self) -> None:
        """Listen; :attr:`port` is then the real port. Raises AddressInUse."""
        listener = self._socket or listen_for_sql(self._settings.host, self._settings.sql_port)
        self.port = listener.getsockname()[1]
        await self._http.start(listener)

    async def stop(self) -> None:
        """Close the port, end the queries that run, and finish what writes."""
        self._http.close()
        closing = asyncio.create_task(self._http.stop())
        self._threads.shutdown(wait=False, cancel_futures=True)
        await asyncio.to_thread(self._engine.interrupt)
        await closing
        for threads in (self._threads, self._writers, self._workers):
            await asyncio.to_thread(threads.shutdown)

    @property
    def under_way(self) -> int:
        """How many queries wait or run."""
        return self._under_way

    @property
    def held_bytes(self) -> int:
        """Bytes of large answers and bodies that are held in memory now."""
        return self._bounds.memory.held

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        headers = {
            "X-ClickHouse-Server-Display-Name": "meshflow",
            "X-ClickHouse-Timezone": self._timezone,
        }
        try:
            response = await self._respond(request, headers)
        except QueryFailed as error:
            response = _refuse(request, error, headers)
        except ConnectionError:  # the client is gone: nobody gets this
            response = web.Response(status=400)
        except Exception:
            logger.exception("a query failed for a reason that is not the query's")
            failure = clickhouse.failed(
                clickhouse.UNEXPECTED, "STD_EXCEPTION", "the output of the meshflow process has the reason"
            )
            response = _refuse(request, failure, headers)
        self_metrics.QUERIES.labels(str(response.status)).inc()
        return response

    async def _respond(self, request: web.Request, headers: dict[str, str]) -> web.StreamResponse:
        if request.method not in {"GET", "HEAD", "POST"}:
            return web.Response(
                status=501, text=f"{request.method} is not supported; use GET or POST\n", headers=headers
            )
        began_ns = time.perf_counter_ns()
        parameters = read_parameters(request)
        headers["X-ClickHouse-Query-Id"] = query_id(parameters)
        account.check(
            parameters, request.headers, self._settings.username, self._settings.password.get_secret_value()
        )
        body = await self._read(request, parameters)
        self._http.expect(request, body=False)
        answering = self._begin(request, parameters, body)
        if answering is None:
            return web.Response(text="Ok.\n", headers=headers)
        answer = await asyncio.wrap_future(answering)
        described = {
            **headers,
            "X-ClickHouse-Format": answer.format,
            "X-ClickHouse-Summary": clickhouse.summary(answer, time.perf_counter_ns() - began_ns),
            "Content-Type": clickhouse.content_type(answer.format),
        }
        gzip = parameters.get("enable_http_compression", "1") == "1" and "gzip" in request.headers.get(
            "Accept-Encoding", ""
        )
        return await self._sending.send(request, answer.body, described, gzip)

    async def _read(self, request: web.Request, parameters: dict[str, str]) -> Body:
        """The statement and its rows; parameters of a form are added to those of the URL."""
        form = request.content_type == "multipart/form-data"
        if form:
            parameters |= await read_form(request, parameters, self._bounds)
        if request.method != "POST":
            parameters["readonly"] = "1"  # as ClickHouse: a link that somebody follows changes nothing
        prefix = parameters.get("query", "").encode()
        if request.method != "POST" or form:
            return Body(prefix, None)
        return await read_body(request, prefix, self._bounds, self._rows_folder)

    def _begin(self, request: web.Request, parameters: dict[str, str], body: Body) -> "Future[Answer] | None":
        """Have a request answered in a thread, when its turn comes; those that wait are bounded. None: it
        asks nothing.
        """
        try:
            answering = self._submit(request, parameters, body)
        except BaseException:
            body.close()
            raise
        if answering is None:
            body.close()
            return None
        self._under_way += 1
        loop = asyncio.get_running_loop()
        answering.add_done_callback(lambda _: loop.call_soon_threadsafe(self._done, body))
        return answering

    def _submit(
        self, request: web.Request, parameters: dict[str, str], body: Body
    ) -> "Future[Answer] | None":
        if not body.statement.strip():
            return None
        query = clickhouse.read_query(parameters, request.headers, body.statement, body.rows)
        packing = clickhouse.read_packing(parameters)
        if self._under_way >= self._settings.max_queries + self._settings.max_waiting_queries:
            reason = f"{self._under_way} queries are under way already"
            raise clickhouse.failed(
                clickhouse.TOO_MANY_SIMULTANEOUS_QUERIES, "TOO_MANY_SIMULTANEOUS_QUERIES", reason
            )
        reading = not self._rows_folder or reads(query.sql[:_FIRST_WORDS])
        threads = self._threads if reading else self._writers
        try:
            return threads.submit(self._execute, query, packing)
        except RuntimeError as error:
            raise clickhouse.failed(clickhouse.ABORTED, "ABORTED", "meshflow is stopping") from error

    def _execute(self, query: Query, packing: clickhouse.Packing) -> Answer:
        try:
            answer = self._engine.execute(query, self._limits)
        except UnicodeError as error:
            reason = "a name in the statement is not UTF-8 text"
            raise clickhouse.failed(clickhouse.BAD_ARGUMENTS, "BAD_ARGUMENTS", reason) from error
        if answer.format == "Native" and packing.revision:
            answer = replace(answer, body=native_format.frame(answer.body, packing.revision))
        return replace(answer, body=compressed.pack(answer.body)) if packing.compressed else answer

    def _done(self, body: Body) -> None:
        """Nobody needs the request's rows any more."""
        self._under_way -= 1
        body.close()


def _refuse(request: web.Request, error: QueryFailed, headers: dict[str, str]) -> web.Response:
    headers["X-ClickHouse-Exception-Code"] = str(error.code)
    text = f"{error}\n".encode(errors="replace")
    packed = compressed.pack(text) if request.query.get("compress") == "1" else text
    return web.Response(
        status=clickhouse.status_of(error.code), body=packed, content_type="text/plain", headers=headers
    )


async def _alive(_: web.Request) -> web.Response:
    return web.Response(text="Ok.\n")
