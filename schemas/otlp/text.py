"""OTLP attribute values as text, the way the OpenTelemetry Collector's ClickHouse exporter stores them
(``pcommon.Value.AsString``).

Strings as they are, booleans ``true`` / ``false``, integers decimal, doubles as Go's JSON writes them
(``1e+21``, ``1e-7``, ``100``), bytes base64, arrays and lists of pairs as compact JSON (keys sorted, the last
of equal keys, null for an empty value), an empty value "". NaN and infinities are ``NaN``, ``Infinity``,
``-Infinity`` (strings within JSON), as protobuf's JSON has them and Collectors write them since; older ones
stored an error message or nothing.
"""

import json
import math
from base64 import b64encode
from collections.abc import Iterable
from decimal import Decimal

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue


def value_text(value: AnyValue) -> str:
    """One value as text."""
    match value.WhichOneof("value"):
        case "string_value":
            return value.string_value
        case "double_value":
            return _double(value.double_value)
        case "bytes_value":
            return b64encode(value.bytes_value).decode()
        case None | "string_value_strindex":  # the latter is for profiles only
            return ""
        case _:
            return _json(value)


def attribute_texts(attributes: Iterable[KeyValue]) -> dict[str, str]:
    """Attributes by key: the last value of equal keys, at the place of the first."""
    return {attribute.key: value_text(attribute.value) for attribute in attributes}


def _json(value: AnyValue) -> str:
    match value.WhichOneof("value"):
        case "bool_value":
            return "true" if value.bool_value else "false"
        case "int_value":
            return str(value.int_value)
        case "double_value" if math.isfinite(value.double_value):
            return _double(value.double_value)
        case "array_value":
            return f"[{','.join(_json(element) for element in value.array_value.values)}]"
        case "kvlist_value":
            last = {pair.key: pair.value for pair in value.kvlist_value.values}
            return f"{{{','.join(f'{_quoted(key)}:{_json(last[key])}' for key in sorted(last))}}}"
        case None | "string_value_strindex":
            return "null"
        case _:
            return _quoted(value_text(value))


def _quoted(text: str) -> str:
    """As Go's encoding/json without HTML escapes; it escapes JavaScript's line separators even so."""
    return json.dumps(text, ensure_ascii=False).replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _double(number: float) -> str:
    """As Go's encoding/json: shortest digits that read back, exponents outside of [1e-6, 1e21)."""
    if math.isnan(number):
        return "NaN"
    if math.isinf(number):
        return "Infinity" if number > 0 else "-Infinity"
    if number != 0 and not 1e-6 <= abs(number) < 1e21:
        return repr(number).replace("e-0", "e-")
    return format(Decimal(repr(number)), "f").removesuffix(".0")
