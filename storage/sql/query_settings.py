"""Settings of one query, and its failure, as every engine of ours has them. No I/O here."""

import re
from collections.abc import Mapping

from schemas.errors import QueryFailed
from schemas.sql import Limits, Query
from storage.sql import read_guard as sql_guard

UNKNOWN_SETTING = 115
UNKNOWN_EXCEPTION = 1002

_CODE = re.compile(r"Code: (\d+)\. ")
_SETTING = re.compile(r"[A-Za-z_]\w*")
_NESTED = re.compile(r"^(?:Code: \d+\. DB::Exception: )+(?=Code: \d+\. DB::Exception: )")
_FORMATTER_SCOPE = re.compile(r": In scope SELECT formatQuerySingleLine\(.*", re.DOTALL)


def limit_settings(query: Query, limits: Limits) -> dict[str, str]:
    """What bounds the query: the limits, or less where the query asks for less."""
    return {
        "max_execution_time": f"{_least(query, 'max_execution_time', limits.time_s):g}",
        "max_memory_usage": f"{_least(query, 'max_memory_usage', limits.memory_bytes):.0f}",
        "max_threads": f"{_least(query, 'max_threads', limits.threads):.0f}",
        "max_result_bytes": f"{_least(query, 'max_result_bytes', limits.result_bytes):.0f}",
        "max_temporary_data_on_disk_size_for_query": str(limits.memory_bytes),
        "timeout_overflow_mode": "throw",
        "result_overflow_mode": "throw",
    }


def _least(query: Query, setting: str, limit: float) -> float:
    """The limit, or the query's own value of the setting where that is lower (0 means none in ClickHouse)."""
    try:
        asked = float(query.settings.get(setting, 0))
    except ValueError:
        asked = 0
    return min(asked, limit) if asked > 0 else limit


def own_settings(settings: Mapping[str, str]) -> dict[str, str]:
    """The settings that a query may choose. Raises QueryFailed for a name that cannot be one."""
    return {
        name: value
        for name, value in valid(settings).items()
        if not sql_guard.GUARDED_SETTINGS.fullmatch(name)
    }


def valid(settings: Mapping[str, str]) -> Mapping[str, str]:
    """The settings, if their names can be names. Raises QueryFailed."""
    for name in settings:
        if not _SETTING.fullmatch(name):
            raise QueryFailed(
                UNKNOWN_SETTING,
                f"Code: {UNKNOWN_SETTING}. DB::Exception: {name!r} is not a setting. (UNKNOWN_SETTING)",
            )
    return settings


def failure(message: str) -> QueryFailed:
    """ClickHouse's code and text out of what chdb raised, without what the guard's own statements added."""
    text = _FORMATTER_SCOPE.sub(". (SYNTAX_ERROR)", _NESTED.sub("", message.strip()))
    code = _CODE.search(text)
    return QueryFailed(int(code[1]) if code else UNKNOWN_EXCEPTION, text)


def escape(text: str) -> str:
    """TSV-escaped, as parameter values are read."""
    return (
        text.replace("\\", "\\\\")
        .replace("\t", "\\t")
        .replace("\n", "\\n")
        .replace("\r", "\\r")
        .replace("\0", "\\0")
    )
