"""Parameters of a request, from its URL and from a form, as texts that the engine can take."""

import re
import uuid
from collections.abc import Mapping
from urllib.parse import unquote_to_bytes

from aiohttp import web

from console.clickhouse import interface as clickhouse
from console.clickhouse.body import Bounds, in_thread, received
from console.clickhouse.form import HasFile, NotForm, parse_form
from console.room import Held
from schemas.errors import QueryFailed

_MAY_REPEAT = frozenset({"role"})
_HEADERS = ("authorization", "content-encoding", "content-type", "accept-encoding")
"""Those that are read here, beside X-ClickHouse-*."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_LONGEST_ID = 1024


def read_parameters(request: web.Request) -> dict[str, str]:
    """The parameters of the URL. Raises QueryFailed (BAD_ARGUMENTS): the URL or a header that is read here is
    not UTF-8, or a parameter is given twice.
    """
    try:
        unquote_to_bytes(request.rel_url.raw_query_string).decode()
    except UnicodeDecodeError:
        raise _bad("the URL is not UTF-8 text") from None
    for name, value in request.headers.items():
        if name.lower() in _HEADERS or name.lower().startswith("x-clickhouse-"):
            _check_text(f"header {name}", value)
    parameters: dict[str, str] = {}
    for name, value in request.query.items():
        _add(parameters, name, value)
    return parameters


async def read_form(request: web.Request, parameters: Mapping[str, str], bounds: Bounds) -> dict[str, str]:
    """``parameters`` and the fields of a multipart form. Raises QueryFailed: too large, too slow, not such a
    form, with files, or with a field that is among ``parameters`` or given twice.
    """
    if request.headers.get("Content-Encoding", "identity").lower() not in {"", "identity"}:
        raise clickhouse.failed(clickhouse.UNSUPPORTED, "NOT_IMPLEMENTED", "a form cannot be packed here")
    with Held(bounds.memory) as held:
        body = bytearray()
        async for chunk in received(request, bounds.pace, bounds.statement):
            body += chunk
            held.resize(len(body))
        try:
            fields = await in_thread(bounds.workers, parse_form, request.headers["Content-Type"], bytes(body))
        except HasFile:
            reason = "external tables are not supported here"
            raise clickhouse.failed(clickhouse.UNSUPPORTED, "NOT_IMPLEMENTED", reason) from None
        except NotForm as error:
            raise _bad(f"the body is not a form as its Content-Type says: {error}") from error
    found = dict(parameters)
    for name, value in fields:
        _add(found, name, value)
    return found


def query_id(parameters: Mapping[str, str]) -> str:
    """``query_id``, or a new one. Raises QueryFailed: not fit for a header."""
    given = parameters.get("query_id", "")
    if len(given) > _LONGEST_ID or _CONTROL.search(given):
        raise _bad(f"query_id has more than {_LONGEST_ID} characters, or a control character")
    return given or str(uuid.uuid4())


def _add(parameters: dict[str, str], name: str, value: str) -> None:
    _check_text("a parameter's name", name)
    _check_text(f"parameter {name[:100]!r}", value)
    if parameters.get(name, value) != value and name not in _MAY_REPEAT:
        raise _bad(f"parameter {name[:100]!r} is given twice")
    parameters[name] = value


def _check_text(what: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _bad(f"{what} is not UTF-8 text") from None


def _bad(reason: str) -> QueryFailed:
    return clickhouse.failed(clickhouse.BAD_ARGUMENTS, "BAD_ARGUMENTS", reason)
