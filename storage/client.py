"""One client for both engines: a ClickHouse server over HTTP, or chdb in this process (clickhouse-connect
speaks to either).
"""

import fcntl
import logging
import os
import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import clickhouse_connect
from clickhouse_connect import common
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError, DatabaseError, OperationalError

from schemas.errors import SinkRejected, SinkTooLarge, SinkUnavailable, SinkUnusable
from storage import damage, embedded
from storage.deduplication_log import repair
from storage.settings import ChdbStore, ClickHouseStore

_STATUS = "status"  # the file by which ClickHouse's engine locks its data folder
_TIMEOUT_S = 60
_URL = re.compile(r" with url: \S+|(?<=/)\?[\w%]+=\S*?(?=\)|$| )")

_ADVICE = (
    "restore the folder from a copy, or say `meshflow repair`, which sets aside what cannot be read, or move the folder"
    " away: its rows are lost then, the log's records of the last day are not"
)

CLUSTER_SETTINGS = {
    "distributed_foreground_insert": "1",  # an INSERT is answered when every shard has its rows
    "distributed_ddl_task_timeout": "120",
}
"""Of every query on a cluster, see docs/adr/0018."""

REJECTED_CODES = frozenset(
    {
        6,  # CANNOT_PARSE_TEXT
        9,  # SIZES_OF_COLUMNS_DOESNT_MATCH
        27,  # CANNOT_PARSE_INPUT_ASSERTION_FAILED
        33,  # CANNOT_READ_ALL_DATA
        36,  # BAD_ARGUMENTS
        38,  # CANNOT_PARSE_DATE
        41,  # CANNOT_PARSE_DATETIME
        43,  # ILLEGAL_TYPE_OF_ARGUMENT
        69,  # ARGUMENT_OUT_OF_BOUND
        72,  # CANNOT_PARSE_NUMBER
        117,  # INCORRECT_DATA
        131,  # TOO_LARGE_STRING_SIZE
        128,  # TOO_LARGE_ARRAY_SIZE
        190,  # SIZES_OF_ARRAYS_DONT_MATCH
        321,  # VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE
        349,  # CANNOT_INSERT_NULL_IN_ORDINARY_COLUMN
        407,  # DECIMAL_OVERFLOW
        469,  # VIOLATED_CONSTRAINT
    }
)
"""ClickHouse's error codes (src/Common/ErrorCodes.cpp) that say that rows of the block are wrong."""

TOO_LARGE_CODES = frozenset(
    {
        158,  # TOO_MANY_ROWS
        307,  # TOO_MANY_BYTES
        396,  # TOO_MANY_ROWS_OR_BYTES
    }
)
"""The block is too large for a limit of the server's."""

MEMORY_LIMIT_EXCEEDED = 241
_OF_ONE_QUERY = "(for query)"
"""Stands in a MEMORY_LIMIT_EXCEEDED of one query's own limit; with the server's total the memory may be there
later.
"""

UNUSABLE_CODES = {
    **dict.fromkeys(
        (
            8,  # THERE_IS_NO_COLUMN
            10,  # NOT_FOUND_COLUMN_IN_BLOCK
            16,  # NO_SUCH_COLUMN_IN_TABLE
            20,  # NUMBER_OF_COLUMNS_DOESNT_MATCH
            44,  # ILLEGAL_COLUMN
            47,  # UNKNOWN_IDENTIFIER
            50,  # UNKNOWN_TYPE
            53,  # TYPE_MISMATCH
            60,  # UNKNOWN_TABLE
            62,  # SYNTAX_ERROR
            70,  # CANNOT_CONVERT_TYPE
            81,  # UNKNOWN_DATABASE
        ),
        "the tables are not those of this version: run `meshflow migrate`, or undo the change made to them",
    ),
    **dict.fromkeys(
        (
            164,  # READONLY
            192,  # UNKNOWN_USER
            193,  # WRONG_PASSWORD
            194,  # REQUIRED_PASSWORD
            195,  # IP_ADDRESS_NOT_ALLOWED
            497,  # ACCESS_DENIED
            516,  # AUTHENTICATION_FAILED
        ),
        "the database does not let this user write: check the user and password in storage.store, and grant it"
        " INSERT on the tables",
    ),
    **dict.fromkeys(
        (
            115,  # UNKNOWN_SETTING
            452,  # SETTING_CONSTRAINT_VIOLATION
        ),
        "the server refuses a setting that meshflow needs: allow it in the user's profile, or use a version of"
        " ClickHouse that README names",
    ),
}
"""Codes of errors that no block passes until someone mends the database -> what to do. All other codes may go
away.
"""


_UNTRUSTED = "CERTIFICATE_VERIFY_FAILED"


def open_client(place: ChdbStore | ClickHouseStore) -> Client:
    """A client; each has a session of its own, and several may be open on one chdb folder of this process.

    Raises SinkUnavailable: the server does not answer, or the folder is in use by another process;
    SinkUnusable: the server does not let us in, or a file of the settings is not there.
    """
    common.set_setting(
        "autogenerate_session_id", False
    )  # a session would make the server refuse queries side by side
    try:
        return _open_server(place) if isinstance(place, ClickHouseStore) else _open_chdb(place)
    except (ClickHouseError, OSError) as error:
        advice = "" if isinstance(place, ClickHouseStore) else f"; {_ADVICE}"
        if getattr(error, "code", None) in UNUSABLE_CODES or _UNTRUSTED in str(error):
            raise SinkUnusable(f"{_name(place)} cannot be opened: {plain_text(error)}") from error
        raise SinkUnavailable(f"{_name(place)} cannot be opened: {plain_text(error)}{advice}") from error


@contextmanager
def errors(doing: str) -> Iterator[None]:
    """Turn the client's errors into those of schemas.sink.Sink.write."""
    try:
        yield
    except ClickHouseError as error:
        raise classify(error, doing) from error
    except OSError as error:
        raise SinkUnavailable(f"{doing}: {error}") from error


def classify(error: ClickHouseError, doing: str) -> SinkRejected | SinkUnavailable | SinkUnusable:
    """What an error of the client means to the writer of a block."""
    code = getattr(error, "code", None)
    text = f"{doing}: {plain_text(error)}"
    if code in UNUSABLE_CODES:
        return SinkUnusable(f"{UNUSABLE_CODES[code]} ({text})")
    if code in TOO_LARGE_CODES or (code == MEMORY_LIMIT_EXCEEDED and _OF_ONE_QUERY in text):
        return SinkTooLarge(text)
    if code in REJECTED_CODES:
        return SinkRejected(text)
    if code is None and not isinstance(error, OperationalError) and type(error) is not DatabaseError:
        return SinkRejected(f"{doing}: {error}")  # clickhouse-connect itself refused to send it
    return SinkUnavailable(text)


def plain_text(error: Exception) -> str:
    """What an error of the client says, without the URL's forty parameters."""
    return _URL.sub("", str(error))


def _open_server(place: ClickHouseStore) -> Client:
    for name in ("urllib3.connectionpool", "clickhouse_connect.driver._backend.http_sync"):
        logging.getLogger(name).setLevel(
            logging.ERROR
        )  # they tell of every try, with a URL of forty parameters; we tell once
    options = place.options
    if missing := options.missing_file():
        raise SinkUnusable(f"{missing} is not there")
    tls: dict[str, Any] = {}
    if place.secure:
        options.accept_unchecked()
        tls = {
            "verify": options.check_certificate,
            "ca_cert": options.ca_file or None,
            "client_cert": options.certificate_file or None,
            "client_cert_key": options.key_file or None,
            "tls_mode": ("strict" if place.password else "mutual") if options.certificate_file else None,
        }
    return clickhouse_connect.get_client(
        host=place.host,
        port=place.port,
        username=place.username,
        password=place.password,
        database=place.database or None,
        secure=place.secure,
        connect_timeout=10,
        send_receive_timeout=_TIMEOUT_S,
        query_retries=0,
        settings=dict(CLUSTER_SETTINGS) if place.cluster else None,
        show_clickhouse_errors=True,
        **tls,
    )


def _open_chdb(place: ChdbStore) -> Client:
    place.directory.mkdir(parents=True, exist_ok=True)
    status = place.directory / _STATUS
    if not status.exists() or _left_by_a_kill(status):
        repair(place.directory)
    try:
        with closing(embedded.connect(place.directory)):  # the first one starts the engine, with its rules
            return clickhouse_connect.get_client(
                dsn="chdb://", path=f"file:{embedded.name_of(place.directory)}"
            )
    except (ClickHouseError, *embedded.ERRORS) as error:
        if status.exists():
            raise SinkUnavailable(
                f"{_name(place)} is in use by another process ({status.read_text().partition(chr(10))[0]})"
            ) from error
        reason = damage.explain(embedded.text_of(error), place.directory.resolve())
        raise SinkUnavailable(f"{_name(place)} cannot be opened: {reason}; {_ADVICE}") from error


def _left_by_a_kill(status: Path) -> bool:
    """Whether the status file is there (the engine deletes it when it closes) and nobody holds its lock."""
    try:
        descriptor = os.open(status, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def _name(place: ChdbStore | ClickHouseStore) -> str:
    return (
        f"clickhouse://{place.host}:{place.port}"
        if isinstance(place, ClickHouseStore)
        else f"the store at {place.directory}"
    )
