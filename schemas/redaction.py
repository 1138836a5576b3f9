"""What is kept out of the store, as a plain value: the settings give it, processing applies it."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

MASK = "****"
"""What stands where a value, or a part of a text, was."""


@dataclass(frozen=True, slots=True)
class RedactionRules:
    """Rules on attributes by key, then on all texts by pattern.

    A key is a whole key, or has ``*`` for any characters; case does not matter. Of the rules that a key
    meets, the first of drop, hash, mask holds.
    """

    drop: tuple[str, ...] = ()
    """Keys of attributes that are left out."""
    hash: tuple[str, ...] = ()
    """Keys of attributes of which a digest is stored."""
    mask: tuple[str, ...] = ()
    """Keys of attributes of which MASK is stored."""
    mask_patterns: tuple[str, ...] = ()
    """Regular expressions (RE2): MASK is stored where they match."""
    hash_key: str = field(default="", repr=False)
    """Key of the digests (HMAC); "": plain SHA-256."""
    credentials: bool = True
    """Whether keys and patterns of credentials are masked as well (processors.redaction.credentials)."""


CREDENTIALS_ALONE = RedactionRules()
"""The settings' defaults."""


def matching_run(pattern: str) -> str:
    """A pattern that matches neighbouring matches at once."""
    return f"(?:{pattern})+"


def matching_any(patterns: Iterable[str]) -> str:
    """A pattern that matches wherever one of these does; "" for none."""
    return "|".join(f"(?:{pattern})" for pattern in patterns)


def pattern_fault(pattern: str) -> str:
    """Why a text is no pattern for ``mask_patterns``; "": it is one."""
    try:
        matches_nothing = pc.match_substring_regex(pa.array([""]), pattern)[0].as_py()
        pc.replace_substring_regex(pa.array([""]), matching_run(pattern), MASK)
    except pa.ArrowInvalid as error:
        return f"is no regular expression of RE2: {str(error).removeprefix('Invalid regular expression: ')}"
    return (
        "matches the empty text, and so everywhere; ask for one character at least" if matches_nothing else ""
    )
