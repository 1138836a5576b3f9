"""Rules on arrays: each by itself, and all of them against a plain loop."""

import hashlib
import time

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.redaction.redaction import Redaction
from schemas.redaction import RedactionRules
from schemas.spans import ATTRIBUTES
from tests.support.examples import examples
from tests.support.plain_redaction import plain_attributes, plain_text

PIECES = (
    "Bearer ", "basic ", "abc1", "dXNlcjpw", "token", "password", "sig", "api_key", "=", ":", '"', '\\"', "@", "://", "https://u:p", " ",
    "eyJhbGciOi.a.b", "AKIAIOSFODNN7EXAMPLE", "/", "?", "&", "\n", "****", "é", "Cookie: a=b", "-----BEGIN PRIVATE KEY-----", "x",
    "4000-1234",
)  # fmt: skip
TEXTS = st.lists(st.sampled_from(PIECES), max_size=8).map("".join)
KEYS = st.sampled_from([
    "authorization", "http.request.header.Cookie", "db.password", "enduser.id", "enduser.name", "url.full", "a", "A", "a.b", "meshflow.cut",
    "https://u:pw@h", "",
]) | TEXTS  # fmt: skip
GLOBS = st.lists(
    st.sampled_from(["enduser.*", "*", "a", "a.*", "*.b", "url.full", "*e*", "x*", "db.*"]), max_size=2
).map(tuple)
RULES = st.builds(
    RedactionRules, drop=GLOBS, hash=GLOBS, mask=GLOBS, credentials=st.booleans(),
    mask_patterns=st.lists(st.sampled_from([r"4\d{3}-\d{4}", "é", "^x", "(a)(b)"]), max_size=2).map(tuple),
    hash_key=st.sampled_from(["", "k" * 16]),
)  # fmt: skip


def maps(*sets: dict[str, str]) -> pa.MapArray:
    return pa.array([list(attributes.items()) for attributes in sets], ATTRIBUTES)


@examples(300)
@given(st.lists(TEXTS, max_size=6), RULES)
def test_texts_are_as_a_plain_loop_has_them(texts: list[str], rules: RedactionRules) -> None:
    masked, count = Redaction.of(rules).texts(pa.array(texts, pa.string()))
    expected = [plain_text(text, rules) for text in texts]
    assert masked.to_pylist() == expected
    assert count == sum(new != old for new, old in zip(expected, texts, strict=True))


@examples(300)
@given(st.lists(st.dictionaries(KEYS, TEXTS, max_size=5), max_size=4), RULES, st.integers(0, 2))
def test_attributes_are_as_a_plain_loop_has_them(
    sets: list[dict[str, str]], rules: RedactionRules, first: int
) -> None:
    given_maps = maps(*sets)[first:]
    redacted, count = Redaction.of(rules).maps(given_maps)
    expected = [plain_attributes(attributes, rules) for attributes in sets[first:]]
    redacted.validate(full=True)
    assert redacted.type == ATTRIBUTES
    assert redacted.to_pylist() == [stored for stored, _ in expected]
    assert count == sum(number for _, number in expected)


def test_the_first_of_drop_hash_and_mask_holds() -> None:
    rules = RedactionRules(drop=("a",), hash=("a", "b"), mask=("*",))
    redacted, count = Redaction.of(rules).maps(maps({"a": "1", "b": "2", "c": "3"}, {}, {"A": "1"}))
    digest = hashlib.sha256(b"2").hexdigest()[:32]
    assert redacted.to_pylist() == [[("b", digest), ("c", "****")], [], []]
    assert count == 4


def test_equal_values_have_equal_digests_that_another_key_does_not_give() -> None:
    values = maps({"user": "ann"}, {"user": "bob"}, {"user": "ann"})
    digests = []
    for hash_key in ("", "k" * 16, "l" * 16):
        rules = RedactionRules(hash=("user",), hash_key=hash_key)
        (a,), (b,), (c,) = Redaction.of(rules).maps(values)[0].to_pylist()
        assert a == c != b
        digests.append(a[1])
    assert len(set(digests)) == 3
    assert digests[0] == hashlib.sha256(b"ann").hexdigest()[:32]


def test_keys_that_a_mask_makes_equal_stay_apart() -> None:
    given_maps = maps({"https://u:a@h": "1", "https://u:b@h": "2", "x": "3"})
    redacted, count = Redaction.of(RedactionRules()).maps(given_maps)
    assert redacted.to_pylist() == [[("https://u:****@h", "1"), ("https://u:****@h", "2"), ("x", "3")]]
    assert count == 2


def test_the_mark_of_a_cut_set_stays_whatever_the_rules() -> None:
    rules = RedactionRules(drop=("*",))
    redacted, count = Redaction.of(rules).maps(maps({"meshflow.cut": "1", "a": "b"}))
    assert (redacted.to_pylist(), count) == ([[("meshflow.cut", "1")]], 1)


def test_neighbouring_matches_of_a_pattern_are_one_mask() -> None:
    masked, _ = Redaction.of(RedactionRules(mask_patterns=("[0-9]",))).texts(pa.array(["a1234b5"]))
    assert masked.to_pylist() == ["a****b****"]


@pytest.mark.parametrize(
    "unit",
    [
        "a",
        "token",
        "=",
        '"password":',
        "https://u:",
        "Bearer ",
        "eyJhbGci.",
        "\\",
        "-----BEGIN PRIVATE KEY-----",
    ],
)
def test_a_value_of_a_mebibyte_takes_time_in_proportion(unit: str) -> None:
    redaction = Redaction.of(RedactionRules(mask_patterns=("(a+)+$", "(a|aa)+!")))
    text = (unit * (1 << 20))[: 1 << 20]
    begin_s = time.process_time()
    redaction.texts(pa.array([text]))
    assert time.process_time() - begin_s < 60  # a backtracking matcher needs years


def test_thousands_of_distinct_keys_and_values() -> None:
    sets = [{f"key-{number}": f"value {number} token={number}"} for number in range(20_000)]
    rules = RedactionRules(hash=("key-1*",), hash_key="k" * 16)
    redacted, count = Redaction.of(rules).maps(maps(*sets))
    assert count == 20_000
    for attributes, stored in zip(sets[::997], redacted.to_pylist()[::997], strict=True):
        assert stored == plain_attributes(attributes, rules)[0]
