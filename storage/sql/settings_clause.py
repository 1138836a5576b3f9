"""Settings as a statement writes them: ``SETTINGS name = value``, ``SET ...``, ``EXPLAIN name = value``."""

import re
from typing import NamedTuple

from storage.sql.masking import Text, denied, unquote

_VALUE = r"(?:'_*'|-?\w[\w.]*(?:[eE]?[+-]\d+)?|\{(?:'_*': ?'_*'(?:, ?)?)*\}|\[(?:'_*'(?:, ?)?)*\])"
_ASSIGNMENT = re.compile(rf"(\w+) = ({_VALUE})(?=[ ,)]|$)")
_BEGIN = re.compile(r"\b(?:(?:MODIFY )?SETTINGS?|(?<![^(])SET) (?=\w+ = )")
_WORD = re.compile(r"\bSETTINGS\b(?! LIKE| ILIKE| NOT )")
_EXPLAIN = re.compile(r"EXPLAIN(?: AST| SYNTAX| QUERY TREE| PIPELINE| ESTIMATE| PLAN)? (?=\w+ = )")
_PAIR = re.compile(r"\s*('(?:[^'\\]|\\.|'')*')\s*:\s*('(?:[^'\\]|\\.|'')*')\s*(?:,|$)", re.DOTALL)


class Assignment(NamedTuple):
    """One setting and its value as text (of a literal: without quotes and escapes)."""

    name: str
    value: str


def assignments(text: Text, sets: int) -> list[Assignment]:
    """All settings that a statement chooses, wherever their clauses stand.

    ``sets`` is how many clauses the syntax tree has.

    Raises QueryFailed (ACCESS_DENIED): a clause is written in a way that is not understood here.
    """
    clauses = list(_BEGIN.finditer(text.masked))
    if len(clauses) < sets or len(_WORD.findall(text.masked)) > len(clauses):
        raise denied("SETTINGS of this statement cannot be read: write name = value, with plain values")
    return [assignment for clause in clauses for assignment in _read(text, clause.end())]


def explain_settings(text: Text) -> list[Assignment]:
    """The settings of EXPLAIN itself."""
    clause = _EXPLAIN.match(text.masked)
    return _read(text, clause.end()) if clause else []


def pairs(value: str) -> list[tuple[str, str]]:
    """The keys and values of a map of texts (``{'key':'value'}``).

    Raises QueryFailed (ACCESS_DENIED): the value is no such map.
    """
    inner = value.strip()
    if inner[:1] != "{" or inner[-1:] != "}":
        raise denied("additional_table_filters is a map here: {'table':'condition'}")
    inner, found, at = inner[1:-1].strip(), [], 0
    while at < len(inner):
        match = _PAIR.match(inner, at)
        if match is None:
            raise denied("additional_table_filters is a map here: {'table':'condition'}")
        found.append((unquote(match[1]), unquote(match[2])))
        at = match.end()
    return found


def _read(text: Text, start: int) -> list[Assignment]:
    found, at = [], start
    while True:
        match = _ASSIGNMENT.match(text.masked, at)
        if match is None:
            raise denied("SETTINGS of this statement cannot be read: write name = value, with plain values")
        value = text.sql[match.start(2) : match.end(2)]
        found.append(
            Assignment(text.sql[match.start(1) : match.end(1)], unquote(value) if value[0] == "'" else value)
        )
        if not re.compile(r", \w+ = ").match(text.masked, match.end()):
            return found
        at = match.end() + 2
