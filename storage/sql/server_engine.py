"""Read-only SQL on a ClickHouse server, under the same guard and the same limits as on chdb
(schemas.sql.Engine).
"""

import json
import uuid
from collections.abc import Mapping
from contextlib import suppress
from urllib.parse import urlencode

import urllib3

from schemas.errors import QueryFailed
from schemas.sql import Answer, Limits, Query
from storage.settings import ClickHouseStore
from storage.sql.judge import Judge
from storage.sql.query_settings import failure, limit_settings, own_settings, too_large

NETWORK_ERROR = 210
_CONNECT_S = 10.0
_MOST_TREE_BYTES = 64 << 20
_CHUNK_BYTES = 1 << 20
_SPARE_S = 30.0
"""How much longer than the query may take its answer is waited for."""


class ServerEngine:
    """A server over HTTP. The server formats a query, parses it, and runs it at the level that the guard
    allows.
    """

    def __init__(self, place: ClickHouseStore) -> None:
        """Does not connect yet. Raises SinkUnavailable: a file of a certificate cannot be used."""
        scheme = "https" if place.secure else "http"
        self._url = f"{scheme}://{f'[{place.host}]' if ':' in place.host else place.host}:{place.port}/"
        self._database = place.database
        self._judge = Judge(writable=False, database=place.database or "default")
        self._headers = {"X-ClickHouse-User": place.username}
        if place.password or not place.options.certificate_file:
            self._headers["X-ClickHouse-Key"] = place.password
        else:
            self._headers["X-ClickHouse-SSL-Certificate-Auth"] = "on"
        if place.secure:
            place.options.accept_unchecked()
        self._pool = urllib3.PoolManager(
            retries=False,
            maxsize=8,
            block=True,
            ssl_context=place.options.ssl_context() if place.secure else None,
        )
        self._name = f"meshflow-{uuid.uuid4()}"

    def execute(self, query: Query, limits: Limits) -> Answer:
        """See schemas.sql.Engine.execute."""
        limiting = limit_settings(query, limits)
        parameters = {f"param_{name}": value for name, value in query.parameters.items()}
        timeout_s = limits.time_s + _SPARE_S
        base = {**limiting, "database": query.database or self._database}

        def ask(sql: str, values: Mapping[str, str]) -> str:
            fields = {**base, **{f"param_{name}": value for name, value in values.items()}}
            return (
                self._ask(sql, fields, "TSVRaw", timeout_s, _MOST_TREE_BYTES).body.decode().removesuffix("\n")
            )

        sql, verdict = self._judge.decide(ask, query, limits)
        return self._ask(
            sql,
            {**own_settings(query.settings), **base, **parameters, "readonly": str(verdict.readonly)},
            query.default_format,
            timeout_s,
            limits.result_bytes,
        )

    def interrupt(self) -> None:
        """See schemas.sql.Engine.interrupt. Only this engine's own queries."""
        with suppress(QueryFailed):
            self._ask(
                f"KILL QUERY WHERE query_id LIKE '{self._name}-%' ASYNC",
                {},
                "Null",
                _CONNECT_S,
                _MOST_TREE_BYTES,
            )

    def close(self) -> None:
        """See schemas.sql.Engine.close."""
        self._pool.clear()

    def _ask(
        self, sql: str, parameters: Mapping[str, str], default_format: str, timeout_s: float, most_bytes: int
    ) -> Answer:
        fields = {
            "query_id": f"{self._name}-{uuid.uuid4()}",
            "default_format": default_format,
            "wait_end_of_query": "1",
            **parameters,
        }
        try:
            response = self._pool.request(
                "POST",
                f"{self._url}?{urlencode(fields)}",
                body=sql.encode(),
                headers=self._headers,
                timeout=urllib3.Timeout(connect=_CONNECT_S, read=timeout_s),
                preload_content=False,
            )
            data = _read(response, most_bytes)
        except urllib3.exceptions.HTTPError as error:
            reason = f"the ClickHouse server at {self._url} does not answer: {type(error).__name__}"
            raise QueryFailed(
                NETWORK_ERROR, f"Code: {NETWORK_ERROR}. DB::Exception: {reason}. (NETWORK_ERROR)"
            ) from error
        if response.status != 200 or "X-ClickHouse-Exception-Code" in response.headers:
            raise failure(data.decode(errors="replace"))
        summary = json.loads(response.headers.get("X-ClickHouse-Summary", "{}"))
        read = (int(summary.get("read_rows", 0)), int(summary.get("read_bytes", 0)))
        return Answer(data, response.headers.get("X-ClickHouse-Format", default_format), *read)


def _read(response: urllib3.BaseHTTPResponse, most_bytes: int) -> bytes:
    """The body, if it is not larger than allowed. Raises QueryFailed."""
    chunks, taken = [], 0
    try:
        for chunk in response.stream(_CHUNK_BYTES):
            taken += len(chunk)
            if taken > most_bytes:
                response.close()  # what is left is not read: the connection cannot serve another query
                raise too_large(most_bytes)
            chunks.append(chunk)
    finally:
        response.release_conn()
    return b"".join(chunks)
