"""Where an INSERT ends and its rows begin, after ClickHouse's src/Parsers/ParserInsertQuery.cpp. No I/O here.

Only the cut is made here: what the statement is and whether it may run, the engine's own parser says.
"""

import re

_TOKEN = re.compile(  # linear: nothing is read twice, and what is not closed goes to the end
    rb"""(?P<space>\s+|--[^\n]*|\#[\x20!][^\n]*|/\*.*?(?:\*/|\Z))
    |(?P<quoted>'(?:[^'\\]|\\.|'')*+(?:'|\\?\Z)|`(?:[^`\\]|\\.|``)*+(?:`|\\?\Z)|"(?:[^"\\]|\\.|"")*+(?:"|\\?\Z))
    |(?P<word>\w+)
    |(?P<sign>.)""",
    re.DOTALL | re.VERBOSE,
)
_BEFORE_ROWS = re.compile(rb"[ \t\f]*(?:\r?\n)?")
_NOT_NAMES = frozenset({b"INTO", b"TABLE", b"FUNCTION"})
_NO_ROWS = frozenset({b"SELECT", b"WITH", b"FROM", b"EXPLAIN", b"WATCH"})
_READING = frozenset({b"SELECT", b"WITH", b"SHOW", b"DESCRIBE", b"DESC", b"EXISTS", b"EXPLAIN"})


def split_insert(text: bytes) -> int | None:
    """Where the rows of ``INSERT ... FORMAT name`` or ``INSERT ... VALUES`` begin; None for a statement
    without rows of its own.
    """
    depth, names = 0, 0
    before = sign = b""
    for token in _TOKEN.finditer(text):
        if token["space"]:
            continue
        part_of_name, sign = sign == b".", token["sign"] or b""
        if token["sign"]:
            depth += {b"(": 1, b")": -1}.get(token["sign"], 0)
        word = (token["word"] or token["quoted"] or b"").upper()
        if not word or part_of_name or word in _NOT_NAMES:
            continue
        names += 1
        if names == 1 and word != b"INSERT":
            return None
        if before == b"FORMAT":
            rows = _BEFORE_ROWS.match(text, token.end())
            return rows.end() if rows else token.end()
        if names > 2 and depth == 0:
            if word in _NO_ROWS:
                return None
            if word == b"VALUES":
                return token.end()
            before = word
    return None


def reads(sql: str) -> bool:
    """Whether a statement begins like one that only reads: which threads run it, not whether it may run."""
    first = next((token["word"] for token in _TOKEN.finditer(sql.encode()) if token["word"]), b"")
    return first.upper() in _READING
