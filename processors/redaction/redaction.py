"""Rules applied to Arrow arrays: each distinct key is looked at once, and each text; those that a pattern may
match are masked once each.

RE2 and Rust's regular expressions are linear in the text whatever the pattern: no sender can make them slow.
Arrow compiles a pattern at each call (2 ms for all of credentials'), Polars once for a thread: so Polars
looks for suspects.
"""

import hashlib
import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from processors.redaction import credentials
from schemas.otlp.limits import CUT_KEY
from schemas.redaction import MASK, RedactionRules, matching_any, matching_run

NOTHING, DROP, HASH, MASK_ALL = range(4)
"""What becomes of an attribute by its key."""

DIGEST_LENGTH = 32
"""Hex digits that are stored of SHA-256's 64."""

_Actions = npt.NDArray[np.uint8]
_Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Redaction:
    """Rules, compiled once. Methods give the array itself where nothing is to be done, and how much was."""

    by_key: tuple[tuple[int, str], ...]
    """What becomes of attributes whose keys a pattern (Rust's) matches; the first one holds."""
    masks: tuple[tuple[str, str], ...]
    """Patterns (RE2) and what replaces their matches, in their order."""
    suspects: str
    """A pattern (Rust's) that finds every text that a mask of credentials changes; "" without them."""
    asked: str
    """A pattern (RE2) that finds every text that another mask changes; "" without them."""
    hash_key: bytes

    @classmethod
    def of(cls, rules: RedactionRules) -> "Redaction":
        """Raises ArrowInvalid: a pattern is no regular expression, or all of them together are too large."""
        default_keys = credentials.KEYS if rules.credentials else ()
        keys = ((DROP, rules.drop), (HASH, rules.hash), (MASK_ALL, (*rules.mask, *default_keys)))
        asked = matching_any(rules.mask_patterns)
        pc.match_substring_regex(pa.array([""]), asked)
        return cls(
            by_key=tuple((action, _any_of(globs)) for action, globs in keys if globs),
            masks=(
                *(credentials.PATTERNS if rules.credentials else ()),
                *((matching_run(pattern), MASK) for pattern in rules.mask_patterns),
            ),
            suspects=credentials.SUSPECT if rules.credentials else "",
            asked=asked,
            hash_key=rules.hash_key.encode(),
        )

    def texts(self, values: pa.StringArray, only: _Flags | None = None) -> tuple[pa.StringArray, int]:
        """Texts with what the masks match replaced, and how many differ. ``only``: which are looked at."""
        if not len(values):
            return values, 0
        suspects = self._suspects(values)
        if only is not None:
            suspects &= only
        if not suspects.any():
            return values, 0
        places = pa.array(suspects)
        distinct = values.filter(places).dictionary_encode()
        masked = distinct.dictionary
        for pattern, replacement in self.masks:
            masked = pc.replace_substring_regex(masked, pattern, replacement)
        changed = pc.not_equal(masked, distinct.dictionary).take(distinct.indices)
        count = pc.sum(changed).as_py()
        return (
            (pc.replace_with_mask(values, places, masked.take(distinct.indices)), count)
            if count
            else (values, 0)
        )

    def action(self, key: str) -> int:
        """What becomes of an attribute of this key."""
        return int(self._actions(pa.array([key]))[0])

    def values(self, values: pa.StringArray, action: int) -> pa.StringArray:
        """What is stored instead of these values, by HASH or MASK_ALL."""
        if action == MASK_ALL:
            return pa.repeat(MASK, len(values))
        distinct = values.dictionary_encode()
        digests = [self._digest(value.encode()) for value in distinct.dictionary.to_pylist()]
        return pa.array(digests, pa.string()).take(distinct.indices)

    def maps(self, maps: pa.MapArray) -> tuple[pa.MapArray, int]:
        """Attribute sets, and how many of their attributes were dropped, hashed or masked (a mask in the key
        counts as well). Keys that a mask makes equal stay apart.
        """
        offsets, keys, values = _flat(maps)
        if not len(keys):
            return maps, 0
        names = keys.dictionary_encode()
        codes = names.indices.to_numpy()
        actions = self._actions(names.dictionary)[codes]
        by_key = int(np.count_nonzero(actions))
        dictionary, masked_names = self.texts(names.dictionary)
        others = None if not by_key else actions == NOTHING
        values, by_pattern = self.texts(values, others)
        in_keys = 0
        if masked_names:
            different = np.asarray(pc.not_equal(dictionary, names.dictionary))[codes] & (actions != DROP)
            in_keys, keys = int(np.count_nonzero(different)), dictionary.take(names.indices)
        if not by_key + by_pattern + in_keys:
            return maps, 0
        for action in (HASH, MASK_ALL):
            if (chosen := actions == action).any():
                selected = pa.array(chosen)
                values = pc.replace_with_mask(values, selected, self.values(values.filter(selected), action))
        if (dropped := actions == DROP).any():
            kept = pa.array(~dropped)
            before = np.concatenate([[0], np.cumsum(~dropped, dtype=np.int32)]).astype(np.int32)
            offsets, keys, values = before[offsets], keys.filter(kept), values.filter(kept)
        return pa.MapArray.from_arrays(pa.array(offsets), keys, values), by_key + by_pattern + in_keys

    def lists(self, lists: pa.ListArray) -> tuple[pa.ListArray, int]:
        """Lists of texts or of attribute sets, and how much was redacted in them."""
        offsets = lists.offsets.to_numpy()
        inner = lists.values.slice(offsets[0], offsets[-1] - offsets[0]) if len(offsets) else lists.values
        redacted, count = self.maps(inner) if pa.types.is_map(inner.type) else self.texts(inner)
        if not count:
            return lists, 0
        return pa.ListArray.from_arrays(pa.array(offsets - offsets[0]), redacted, lists.type), count

    def _suspects(self, values: pa.StringArray) -> _Flags:
        found = np.zeros(len(values), np.bool_)
        if self.suspects:
            found |= pl.Series(values, dtype=pl.String).str.contains(self.suspects).to_numpy()
        if self.asked:
            found |= np.asarray(pc.match_substring_regex(values, self.asked))
        return found

    def _actions(self, keys: pa.StringArray) -> _Actions:
        found = np.zeros(len(keys), np.uint8)
        for action, pattern in self.by_key:
            matched = pl.Series(keys, dtype=pl.String).str.contains(pattern).to_numpy()
            found[matched & (found == NOTHING)] = action
        found[np.asarray(pc.equal(keys, CUT_KEY))] = NOTHING  # meshflow's own mark
        return found

    def _digest(self, value: bytes) -> str:
        digest = (
            hmac.digest(self.hash_key, value, "sha256") if self.hash_key else hashlib.sha256(value).digest()
        )
        return digest.hex()[:DIGEST_LENGTH]


def _any_of(globs: Iterable[str]) -> str:
    """A pattern of the keys that one of the globs means."""
    parts = (".*".join(re.escape(part) for part in glob.split("*")) for glob in globs)
    return rf"(?is)\A(?:{'|'.join(parts)})\z"


def _flat(maps: pa.MapArray) -> tuple[npt.NDArray[np.int32], pa.StringArray, pa.StringArray]:
    """Offsets from 0, keys and values of attribute sets, those of a slice alone."""
    offsets = maps.offsets.to_numpy()
    first, last = (int(offsets[0]), int(offsets[-1])) if len(offsets) else (0, 0)
    return offsets - first, maps.keys.slice(first, last - first), maps.items.slice(first, last - first)
