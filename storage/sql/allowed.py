"""What SQL may name. All that is not listed here, or in the files of ``lists/``, is refused.

``tests/storage/sql/test_lists.py`` holds the lists against the installed engine: each name that the engine
knows is in an allowed list or in a refused one, so that a new engine's new names wait until someone reads
what they do.
"""

import re
from functools import cache
from importlib.resources import files

STATEMENTS = frozenset(
    {
        "SelectWithUnionQuery",
        "SelectIntersectExceptQuery",
        "SelectQuery",
        "Explain",
        "DescribeQuery",
        "ExistsTableQuery",
        "ExistsDatabaseQuery",
        "ExistsViewQuery",
        "ShowTables",
        "ShowColumns",
        "ShowIndexes",
        "ShowFunctions",
        "ShowSetting",
        "ShowEngineQuery",
        "ShowCreateTableQuery",
        "ShowCreateViewQuery",
        "ShowCreateDatabaseQuery",
    }
)
"""Roots of syntax trees that only read."""

NODES = STATEMENTS | {
    "ArrayJoin",
    "Asterisk",
    "ColumnsApplyTransformer",
    "ColumnsExceptTransformer",
    "ColumnsListMatcher",
    "ColumnsRegexpMatcher",
    "ColumnsReplaceTransformer",
    "ColumnsReplaceTransformer::Replacement",
    "ColumnsTransformerList",
    "DataType",
    "ExpressionList",
    "Function",
    "Identifier",
    "InterpolateElement",
    "Literal",
    "OrderByElement",
    "QualifiedAsterisk",
    "QualifiedColumnsListMatcher",
    "QualifiedColumnsRegexpMatcher",
    "SampleRatio",
    "Set",
    "Subquery",
    "TableExpression",
    "TableIdentifier",
    "TableJoin",
    "TablesInSelectQuery",
    "TablesInSelectQueryElement",
    "WindowDefinition",
    "WindowListElement",
    "WithElement",
}
"""Nodes of syntax trees that only read."""

EXPLAINS = frozenset(
    {"EXPLAIN", "EXPLAIN AST", "EXPLAIN SYNTAX", "EXPLAIN QUERY TREE", "EXPLAIN PIPELINE", "EXPLAIN ESTIMATE"}
)

EXPLAIN_SETTINGS = frozenset(
    {
        "actions",
        "column_structure",
        "compact",
        "description",
        "dump_ast",
        "dump_passes",
        "dump_tree",
        "graph",
        "header",
        "indexes",
        "input_headers",
        "json",
        "keep_logical_names",
        "oneline",
        "optimize",
        "passes",
        "pretty",
        "projections",
        "query_tree_passes",
        "run_passes",
        "run_query_tree_passes",
        "sorting",
    }
)

SYSTEM_DATABASES = frozenset({"system", "information_schema"})
"""Databases that are the engine's, in lower case."""

LIMITS = {
    "max_execution_time": "time_s",
    "max_memory_usage": "memory_bytes",
    "max_threads": "threads",
    "max_result_bytes": "result_bytes",
}
"""Settings that bound a query's cost, with the field of schemas.sql.Limits: they may be lowered."""

FILTERS = frozenset({"additional_table_filters", "additional_result_filter"})
"""Settings whose values are SQL: these are checked as SQL."""

SETTINGS_IGNORED = re.compile(
    r"readonly|profile|role|dialect|priority|workload|compress|decompress|send_logs_\w+|send_progress_\w+|http_\w+"
    r"|enable_http_compression|cancel_http_readonly_queries_on_client_close|wait_end_of_query|buffer_size"
    r"|(connect|receive|send|idle_connection|tcp_keep_alive)_timeout|log_queries\w*|use_query_cache|session_\w+"
    r"|async_insert\w*|wait_for_async_insert\w*|insert_\w+|max_insert_block_size|add_http_cors_header"
    r"|opentelemetry_\w+|network_compression_method|network_zstd_compression_level|max_temporary_data\w*"
    r"|(timeout|result)_overflow_mode|use_concurrency_control|max_bytes_before_\w+|max_bytes_ratio_before_\w+"
)
"""Settings of a request that clients send by habit: they are left out, as they are this side's to say."""

TYPES = frozenset(
    {
        "AggregateFunction",
        "Array",
        "DateTime",
        "DateTime32",
        "DateTime64",
        "Decimal",
        "Decimal128",
        "Decimal256",
        "Decimal32",
        "Decimal64",
        "Dynamic",
        "Enum",
        "Enum16",
        "Enum8",
        "FixedString",
        "JSON",
        "LowCardinality",
        "Map",
        "Nested",
        "Nullable",
        "QBit",
        "SimpleAggregateFunction",
        "Time64",
        "Tuple",
        "Variant",
    }
)
"""Data types that take arguments."""

_COMBINATORS = re.compile(
    r"(?:SimpleState|OrDefault|Distinct|Resample|ForEach|ArgMax|ArgMin|OrNull|Tuple|Merge|State|Array|Null|Map|If)$",
    re.IGNORECASE,
)
_CALLS_OF_GRAMMAR = frozenset({"codec", "columns", "grouping", "lambda", "regexp"})


@cache
def listed(name: str) -> frozenset[str]:
    """The names in a file of ``lists/``, without comments."""
    text = files("storage.sql").joinpath("lists", f"{name}.txt").read_text()
    return frozenset(line for line in text.splitlines() if line and not line.startswith("#"))


@cache
def _lowered(name: str) -> frozenset[str]:
    return frozenset(entry.lower() for entry in listed(name))


def is_function_refused(name: str) -> bool:
    """Whether a name is a function's that nobody may use (in any case of its letters)."""
    return name.lower() in _lowered("functions_refused")


def is_function(name: str) -> bool:
    """Whether a name is a function's that anyone may use."""
    if is_function_refused(name):
        return False
    lower = name.lower()
    return lower in _lowered("functions") or lower in _CALLS_OF_GRAMMAR or _is_aggregate(name)


def _is_aggregate(name: str) -> bool:
    while name.lower() not in _lowered("aggregates"):
        shorter = _COMBINATORS.sub("", name)
        if shorter == name:
            return False
        name = shorter
    return True
