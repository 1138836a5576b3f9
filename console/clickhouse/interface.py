"""ClickHouse's HTTP interface: what a request asks, and how answers and errors look.

After https://clickhouse.com/docs/interfaces/http and ClickHouse's
src/Server/HTTP/exceptionCodeToHTTPStatus.cpp. No I/O here.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from schemas.errors import QueryFailed
from schemas.sql import Answer, Query, Session

BAD_ARGUMENTS = 36
UNSUPPORTED = 48
TIMEOUT_EXCEEDED = 159
TOO_MANY_SIMULTANEOUS_QUERIES = 202
ABORTED = 236
QUERY_IS_TOO_LARGE = 229
UNEXPECTED = 1001

NOT_SETTINGS = frozenset(
    {
        "add_http_cors_header",
        "buffer_size",
        "cancel_http_readonly_queries_on_client_close",
        "client_protocol_version",
        "close_session",
        "compress",
        "database",
        "decompress",
        "default_format",
        "enable_http_compression",
        "http_headers_progress_interval_ms",
        "http_zlib_compression_level",
        "password",
        "query",
        "query_id",
        "quota_key",
        "role",
        "send_progress_in_http_headers",
        "session_check",
        "session_id",
        "session_timeout",
        "stacktrace",
        "user",
        "wait_end_of_query",
    }
)
"""URL parameters that speak to the interface, not to the query."""

_SESSION_S = 60
_NUMBER = re.compile(r"[0-9]{1,9}")

_STATUS = {
    **dict.fromkeys((194,), 401),
    **dict.fromkeys((164, 192, 193, 497, 512, 516), 403),
    **dict.fromkeys(
        (
            6,
            10,
            15,
            25,
            26,
            27,
            36,
            38,
            41,
            44,
            53,
            62,
            64,
            65,
            72,
            117,
            167,
            168,
            184,
            223,
            271,
            306,
            321,
            376,
            427,
            441,
            456,
            457,
            675,
            676,
        ),
        400,
    ),
    **dict.fromkeys((46, 47, 50, 56, 60, 63, 73, 78, 81, 112, 115, 336, 511), 404),
    **dict.fromkeys((159,), 408),
    **dict.fromkeys((QUERY_IS_TOO_LARGE,), 413),
    **dict.fromkeys((UNSUPPORTED,), 501),
    **dict.fromkeys((76, 209, ABORTED, 439), 503),
}

_CONTENT_TYPES = {
    "CSV": "text/csv; charset=UTF-8; header=absent",
    "CSVWithNames": "text/csv; charset=UTF-8; header=present",
    "CSVWithNamesAndTypes": "text/csv; charset=UTF-8; header=present",
    "JSONEachRow": "application/x-ndjson; charset=UTF-8",
    "JSONCompactEachRow": "application/x-ndjson; charset=UTF-8",
    "JSONLines": "application/x-ndjson; charset=UTF-8",
    "NDJSON": "application/x-ndjson; charset=UTF-8",
    "XML": "application/xml; charset=UTF-8",
    "Markdown": "text/markdown; charset=UTF-8",
    **dict.fromkeys(
        ("Native", "RowBinary", "RowBinaryWithNames", "RowBinaryWithNamesAndTypes"),
        "application/octet-stream",
    ),
    **dict.fromkeys(
        ("Arrow", "ArrowStream", "Parquet", "ORC", "Avro", "MsgPack", "Npy"), "application/octet-stream"
    ),
}


def status_of(code: int) -> int:
    """The HTTP status of a ClickHouse error code."""
    return _STATUS.get(code, 500)


def content_type(output_format: str) -> str:
    """The Content-Type of a ClickHouse format."""
    known = _CONTENT_TYPES.get(output_format)
    if known:
        return known
    if output_format.startswith("JSON"):
        return "application/json; charset=UTF-8"
    if output_format.startswith(("TabSeparated", "TSV")):
        return "text/tab-separated-values; charset=UTF-8"
    return "text/plain; charset=UTF-8"


def read_query(
    parameters: Mapping[str, str], headers: Mapping[str, str], statement: bytes, rows: Path | None = None
) -> Query:
    """The query of a request: placeholders from ``param_*``; every other parameter that does not speak to the
    interface is a setting.

    Raises QueryFailed: a statement that is not UTF-8, a session_timeout that is no number.
    """
    try:
        sql = statement.decode()
    except UnicodeDecodeError as error:
        raise failed(
            UNSUPPORTED,
            "NOT_IMPLEMENTED",
            "the body of the request is not UTF-8 text; compress it with Content-Encoding: gzip",
        ) from error
    return Query(
        sql,
        parameters.get("default_format") or headers.get("X-ClickHouse-Format") or "TabSeparated",
        parameters.get("database") or headers.get("X-ClickHouse-Database", ""),
        {
            name.removeprefix("param_"): value
            for name, value in parameters.items()
            if name.startswith("param_")
        },
        {
            name: value
            for name, value in parameters.items()
            if name not in NOT_SETTINGS and not name.startswith("param_")
        },
        rows,
        _session(parameters),
    )


def _session(parameters: Mapping[str, str]) -> Session | None:
    name = parameters.get("session_id")
    if not name:
        return None
    timeout_s = _number(parameters, "session_timeout", _SESSION_S)
    return Session(name, float(timeout_s), parameters.get("session_check") == "1")


def _number(parameters: Mapping[str, str], name: str, default: int) -> int:
    """A parameter of at most nine digits. Raises QueryFailed (BAD_ARGUMENTS)."""
    text = parameters.get(name, str(default))
    if not _NUMBER.fullmatch(text):
        raise failed(
            BAD_ARGUMENTS, "BAD_ARGUMENTS", f"{name} = {text[:50]!r} is not a number that can be right"
        )
    return int(text)


@dataclass(frozen=True, slots=True)
class Packing:
    """How an answer is put together for its client."""

    revision: int
    """The client's protocol version, which Native depends on (0: none was named)."""
    compressed: bool
    """By ClickHouse's own compression (``console.clickhouse.compressed``)."""


def read_packing(parameters: Mapping[str, str]) -> Packing:
    """What ``client_protocol_version`` and ``compress`` say. Raises QueryFailed: not a number."""
    revision = _number(parameters, "client_protocol_version", 0)
    return Packing(revision, parameters.get("compress") in {"1", "true"})


def failed(code: int, name: str, reason: str) -> QueryFailed:
    """An error of our own that reads like ClickHouse's."""
    return QueryFailed(code, f"Code: {code}. DB::Exception: {reason}. ({name})")


def summary(answer: Answer, elapsed_ns: int) -> str:
    """The X-ClickHouse-Summary header: a JSON object whose numbers are texts."""
    figures = {
        "read_rows": answer.rows_read,
        "read_bytes": answer.bytes_read,
        "written_rows": answer.rows_written,
        "written_bytes": answer.bytes_written,
        "total_rows_to_read": answer.rows_read,
        "result_bytes": len(answer.body),
        "elapsed_ns": elapsed_ns,
    }
    return json.dumps({name: str(value) for name, value in figures.items()}, separators=(",", ":"))
