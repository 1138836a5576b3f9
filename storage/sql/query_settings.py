"""Settings of one query, and its failure, as every engine of ours has them. No I/O here."""

import re
from collections.abc import Mapping

from schemas.errors import QueryFailed
from schemas.sql import Limits, Query
from storage.sql import allowed
from storage.sql.read_guard import is_choice, refused_setting
from storage.sql.settings_clause import pairs

UNKNOWN_SETTING = 115
UNKNOWN_EXCEPTION = 1002
TOO_MANY_ROWS_OR_BYTES = 396

_CODE = re.compile(r"Code: (\d+)\. ")
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


def own_settings(settings: Mapping[str, str], *, writes: bool = False) -> dict[str, str]:
    """The settings of a request that are passed on; limits are not among them.

    Raises QueryFailed: a name that is no setting, or a setting that the one who asks may not choose.
    """
    passed = {}
    for name, value in settings.items():
        of_writes = name in allowed.listed("settings_of_writes") or name in allowed.LIMITS
        if is_choice(name) or (writes and of_writes):
            passed[name] = value
        elif name not in allowed.LIMITS and not allowed.SETTINGS_IGNORED.fullmatch(name):
            raise _not_passed(name)
    return passed


def filters(settings: Mapping[str, str]) -> list[str]:
    """The conditions that stand in settings of a request. Raises QueryFailed: they cannot be read."""
    conditions = []
    if tables := settings.get("additional_table_filters"):
        conditions += [condition for _, condition in pairs(tables)]
    if result := settings.get("additional_result_filter"):
        conditions.append(result)
    return conditions


def _not_passed(name: str) -> QueryFailed:
    if name in allowed.listed("settings_refused") or name in allowed.listed("settings_of_writes"):
        return refused_setting(name)
    text = f"Code: {UNKNOWN_SETTING}. DB::Exception: Unknown setting {name!r}. (UNKNOWN_SETTING)"
    return QueryFailed(UNKNOWN_SETTING, text)


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


def too_large(most_bytes: int) -> QueryFailed:
    """An answer over its limit, as ClickHouse says it."""
    text = f"Limit for result exceeded, max bytes: {most_bytes}. (TOO_MANY_ROWS_OR_BYTES)"
    return QueryFailed(TOO_MANY_ROWS_OR_BYTES, f"Code: {TOO_MANY_ROWS_OR_BYTES}. DB::Exception: {text}")
