"""A formatted statement without what is quoted: where its words are, and nothing else."""

import re
from dataclasses import dataclass

from schemas.errors import QueryFailed

ACCESS_DENIED = 497

_QUOTED = re.compile(
    r"(?P<literal>'(?:[^'\\]|\\.|'')*')"
    r"|(?P<name>`(?:[^`\\]|\\.|``)*`|\"(?:[^\"\\]|\\.|\"\")*\")"
    r"|(?P<heredoc>\$\w*\$)"
    r"|(?P<comment>--|/\*|\#)",
    re.DOTALL,
)
"""One pattern for all that is quoted: what begins first, left to right, hides what the others would see."""

_ODD = re.compile(r"[^ -~]|[`\"$\\]")
_ESCAPE = re.compile(r"\\(?:x([0-9A-Fa-f]{2})|(.))|''", re.DOTALL)
_ESCAPED = {
    "b": "\b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "0": "\0",
    "a": "\a",
    "v": "\v",
    "e": "\x1b",
}


@dataclass(frozen=True, slots=True)
class Text:
    """A statement as the engine formats it (``formatQuerySingleLine``)."""

    sql: str
    masked: str
    """As long as ``sql``: literals are ``'___'``, quoted names ``___``."""
    words: str
    """Literals are ``''``; quoted names are bare where they are plain words, else ``_``."""
    odd_names: frozenset[str]
    """Quoted names that are not plain words."""


def mask(sql: str) -> Text:
    """Take a formatted statement apart.

    Raises QueryFailed (ACCESS_DENIED): it holds what formatted text never has (comments, heredocs, control
    characters in names, quotes that do not close).
    """
    odd: set[str] = set()

    def bare(match: re.Match[str]) -> str:
        if match["literal"]:
            return "''"
        name = unquote(match[0])
        if re.fullmatch(r"\w+", name, re.ASCII):
            return name
        odd.add(name)
        return "_"

    for match in _QUOTED.finditer(sql):
        if match["heredoc"] or match["comment"]:
            raise denied("comments and heredocs within a formatted statement")
        if match["name"] and re.search(r"[\x00-\x1f\x7f]", unquote(match[0])):
            raise denied("a name with control characters is not allowed here")
    masked = _QUOTED.sub(_blank, sql)
    if _ODD.search(masked) or masked.count("'") % 2:
        raise denied("quotes of this statement do not close")
    return Text(sql, masked, _QUOTED.sub(bare, sql), frozenset(odd))


def unquote(quoted: str) -> str:
    """The text of a quoted literal or name."""
    quote = quoted[0]
    inner = quoted[1:-1].replace(quote * 2, quote)
    return _ESCAPE.sub(_unescape, inner)


def denied(reason: str) -> QueryFailed:
    """ACCESS_DENIED, as ClickHouse would say it."""
    return QueryFailed(ACCESS_DENIED, f"Code: {ACCESS_DENIED}. DB::Exception: {reason}. (ACCESS_DENIED)")


def _blank(match: re.Match[str]) -> str:
    return f"'{'_' * (len(match[0]) - 2)}'" if match["literal"] else "_" * len(match[0])


def _unescape(match: re.Match[str]) -> str:
    if match[1]:
        return chr(int(match[1], 16))
    return _ESCAPED.get(match[2], match[2]) if match[2] else match[0]
