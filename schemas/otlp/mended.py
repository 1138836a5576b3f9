"""A payload whose faults were mended, and what was mended."""

from dataclasses import dataclass

MARK = "meshflow.cut"
"""The text in place of a value that nests too deep (``native/src/otlp/mend.rs`` has the same)."""


@dataclass(frozen=True, slots=True)
class Mended:
    """A payload that is well-formed now."""

    payload: bytes
    repaired: int = 0
    """Texts that got U+FFFD, and values of attributes that were cut."""
    dropped: int = 0
    """Items that were left out; at least one for a metric, scope or resource that can't be read."""
    reason: str = ""
    """Of the first item that was left out, where there is more to say than that it is malformed."""
