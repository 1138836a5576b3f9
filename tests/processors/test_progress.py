"""Commit metadata: one writer, one parser."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.progress import Progress

NUMBERS = st.integers(0, 1 << 62)


@given(
    st.builds(Progress, NUMBERS, NUMBERS, st.integers(1, 1 << 40), NUMBERS, st.none() | NUMBERS, st.just(0))
    | st.builds(Progress, NUMBERS, NUMBERS, st.integers(1, 1 << 40), NUMBERS, NUMBERS, NUMBERS)
)
def test_what_is_written_is_read(progress: Progress) -> None:
    text = progress.format()
    assert Progress.parse(text) == progress
    assert len(text) < 4_000


def test_commits_of_2637f36_are_read() -> None:
    assert Progress.parse("next=7 from=3 closed=5 pane_ns=1000 shift_ns=1") == Progress(7, 3, 1000, 1)
    assert Progress(7, 3, 1000, 1).decided_until_ns == 7_001


def test_readers_of_before_count_red_of_what_was_not_decided() -> None:
    """They stored RED when a pane closed, and leave out what lies before ``closed``."""
    assert " from=3 closed=3 " in Progress(7, 3, 1000, 1).format()


def test_none_is_the_logs_start_and_what_meshflow_did_not_write_is_an_error() -> None:
    assert Progress.parse("") is None
    for text in ("next=7", "kafka-consumer", "next=7 from=3 closed=5 pane_ns=1000 shift_ns=1 at=3"):
        with pytest.raises(ValueError, match="not meshflow's"):
            Progress.parse(text)
