"""What ``processors.redaction`` does, in plain Python: a loop over dicts."""

import hashlib
import hmac
import re
from collections.abc import Mapping

from processors.redaction import credentials
from schemas.redaction import RedactionRules

Attributes = Mapping[str, str]


def plain_text(text: str, rules: RedactionRules) -> str:
    """A text with what the masks match replaced."""
    if rules.credentials:
        for pattern, replacement in credentials.PATTERNS:
            text = re.sub(pattern.replace(r"\z", r"\Z"), replacement, text, flags=re.ASCII)
    for pattern in rules.mask_patterns:
        text = re.sub(f"(?:{pattern})+", "****", text, flags=re.ASCII)
    return text


def plain_attributes(attributes: Attributes, rules: RedactionRules) -> tuple[list[tuple[str, str]], int]:
    """Attributes as they are stored, and how many were redacted."""
    stored, count = [], 0
    for key, value in attributes.items():
        if key == "meshflow.cut":  # meshflow's own mark, where no pattern matches its value
            stored.append((key, plain_text(value, rules)))
            count += stored[-1][1] != value
            continue
        default = rules.credentials and _means(key, credentials.KEYS)
        if _means(key, rules.drop):
            count += 1
            continue
        if _means(key, rules.hash):
            new = _digest(value, rules.hash_key)
            count += 1
        elif _means(key, rules.mask) or default:
            new = "****"
            count += 1
        else:
            new = plain_text(value, rules)
            count += new != value
        new_key = plain_text(key, rules)
        count += new_key != key
        stored.append((new_key, new))
    return stored, count


def _means(key: str, globs: tuple[str, ...]) -> bool:
    return any(_fits(key.lower(), glob.lower()) for glob in globs)


def _fits(key: str, glob: str) -> bool:
    first, star, rest = glob.partition("*")
    if not star:
        return key == glob
    return key.startswith(first) and any(_fits(key[at:], rest) for at in range(len(first), len(key) + 1))


def _digest(value: str, key: str) -> str:
    if key:
        return hmac.new(key.encode(), value.encode(), hashlib.sha256).hexdigest()[:32]
    return hashlib.sha256(value.encode()).hexdigest()[:32]
