"""Records' text headers: which there may be, and what is left of those that anybody wrote."""

import pytest

from schemas.records import LABELS, MAX_LABEL_BYTES, Append, TopicPartition, labels_of

A = TopicPartition("otlp_spans", 0)


@pytest.mark.parametrize(
    ("labels", "fault"),
    [
        ({"tenant": "a", "colour": "red"}, "no text header 'colour'"),
        ({"tenant": ""}, "0 bytes"),
        ({"tenant": "ä" * (MAX_LABEL_BYTES // 2) + "x"}, "257 bytes"),
        ({"tenant": "\ud800"}, "not Unicode"),
    ],
)
def test_a_record_has_no_other_labels_than_those_that_are_listed(labels: dict[str, str], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        Append(A, b"x", labels=labels)


def test_of_foreign_headers_only_sound_labels_are_taken() -> None:
    headers = [
        ("tenant", b"\xff"),
        ("source_cluster", b"x" * (MAX_LABEL_BYTES + 1)),
        ("colour", b"red"),
        ("replay_of", None),
        *((name, b"") for name in LABELS),
    ]
    assert labels_of(headers) == {}
    assert labels_of([*headers, ("tenant", b"mine")]) == {"tenant": "mine"}
