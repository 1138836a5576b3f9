"""JSON texts as senders write them: bytes that are not UTF-8, halves of surrogate pairs, deep nesting."""

import re
from typing import Any

import orjson

from schemas.errors import MalformedOtlp

_DEEPEST = 500
"""Brackets within one another that are kept: more than any message of OTLP that is taken
(``schemas.otlp.json.MAX_NESTING``, three brackets a value), and fewer than orjson reads (1,024).
"""

_STRING = r'"[^"\\]*(?:\\.[^"\\]*)*"?'  # the end is optional, so that no text is looked at twice
_STRINGS = re.compile(_STRING, re.DOTALL)
_TOKENS = re.compile(rf"{_STRING}|[\[\]{{}}]", re.DOTALL)
_HALF = r"u[dD][89abAB][0-9a-fA-F]{2}"
_OTHER_HALF = r"u[dD][c-fC-F][0-9a-fA-F]{2}"
_ESCAPES = re.compile(rf"\\(?:{_HALF}\\{_OTHER_HALF}|({_HALF}|{_OTHER_HALF})|.)", re.DOTALL)
_BAD_BYTES = re.compile("[\udc80-\udcff]")


def load(body: bytes) -> tuple[Any, int]:
    """What a JSON text says, and how many of its strings were repaired.

    U+FFFD stands for half a surrogate pair and for each maximal subpart of an ill-formed sequence of UTF-8.
    What nests deeper than any value is null. Raises MalformedOtlp.
    """
    try:
        return orjson.loads(body), 0
    except orjson.JSONDecodeError:
        text, repaired = _repaired(body.decode(errors="surrogateescape"))
    try:
        return orjson.loads(_shallow(text)), repaired
    except orjson.JSONDecodeError as error:
        raise MalformedOtlp(f"not JSON: {error}") from error


def _repaired(text: str) -> tuple[str, int]:
    count = 0

    def whole(found: re.Match[str]) -> str:
        nonlocal count
        string = found[0]
        kept = string
        if _BAD_BYTES.search(kept):
            kept = kept.encode(errors="surrogateescape").decode(errors="replace")
        if "\\u" in kept:
            kept = _ESCAPES.sub(lambda escape: "\\ufffd" if escape[1] else escape[0], kept)
        count += kept != string
        return kept

    return _STRINGS.sub(whole, text), count


def _shallow(text: str) -> str:
    """With null in place of what nests deeper than _DEEPEST."""
    kept: list[str] = []
    depth = end = 0
    for token in _TOKENS.finditer(text):
        if token[0] in "[{":
            depth += 1
            if depth == _DEEPEST + 1:
                kept += text[end : token.start()], "null"
        elif token[0] in "]}":
            depth -= 1
            if depth == _DEEPEST:
                end = token.end()
    return text if not kept else "".join(kept) + (text[end:] if depth <= _DEEPEST else "")
