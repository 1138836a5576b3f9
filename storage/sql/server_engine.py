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
from storage.sql import read_guard as sql_guard
from storage.sql.query_settings import escape, failure, limit_settings, own_settings

NETWORK_ERROR = 210
_CONNECT_S = 10.0
_SPARE_S = 30.0
"""How much longer than the query may take its answer is waited for."""


class ServerEngine:
    """A server over HTTP. A query is three requests: the server formats it, parses it, and runs it at the
    level that the guard allows.
    """

    def __init__(self, place: ClickHouseStore) -> None:
        """Does not connect yet. Raises SinkUnavailable: a file of a certificate cannot be used."""
        scheme = "https" if place.secure else "http"
        self._url = f"{scheme}://{f'[{place.host}]' if ':' in place.host else place.host}:{place.port}/"
        self._database = place.database
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
        own = own_settings(query.settings)
        timeout_s = limits.time_s + _SPARE_S
        base = {**limiting, "database": query.database or self._database}
        formatted = self._ask(
            "SELECT formatQuerySingleLine({meshflow_sql:String})",
            {**base, "param_meshflow_sql": escape(query.sql)},
            "TSVRaw",
            timeout_s,
        )
        sql = formatted.body.decode().removesuffix("\n")
        tree = self._ask(f"EXPLAIN AST {sql}", {**base, **parameters}, "TSVRaw", timeout_s).body.decode()
        verdict = sql_guard.check(sql, tree)
        return self._ask(
            sql,
            {**own, **base, **parameters, "readonly": str(verdict.readonly)},
            query.default_format,
            timeout_s,
        )

    def interrupt(self) -> None:
        """See schemas.sql.Engine.interrupt. Only this engine's own queries."""
        with suppress(QueryFailed):
            self._ask(f"KILL QUERY WHERE query_id LIKE '{self._name}-%' ASYNC", {}, "Null", _CONNECT_S)

    def close(self) -> None:
        """See schemas.sql.Engine.close."""
        self._pool.clear()

    def _ask(self, sql: str, parameters: Mapping[str, str], default_format: str, timeout_s: float) -> Answer:
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
            )
        except urllib3.exceptions.HTTPError as error:
            reason = f"the ClickHouse server at {self._url} does not answer: {type(error).__name__}"
            raise QueryFailed(
                NETWORK_ERROR, f"Code: {NETWORK_ERROR}. DB::Exception: {reason}. (NETWORK_ERROR)"
            ) from error
        if response.status != 200 or "X-ClickHouse-Exception-Code" in response.headers:
            raise failure(response.data.decode(errors="replace"))
        summary = json.loads(response.headers.get("X-ClickHouse-Summary", "{}"))
        read = (int(summary.get("read_rows", 0)), int(summary.get("read_bytes", 0)))
        return Answer(response.data, response.headers.get("X-ClickHouse-Format", default_format), *read)
