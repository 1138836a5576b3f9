"""What is quoted is hidden, and nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import QueryFailed
from storage.sql.masking import mask, unquote


def quoted(quote: str, text: str) -> str:
    return quote + text.replace("\\", "\\\\").replace(quote, f"\\{quote}") + quote


PIECES = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["'", "`", '"']), st.text(alphabet="ab'`\"\\$-/*# .()", max_size=6)),
        st.tuples(st.just(""), st.sampled_from(["SELECT", "file(x)", "FORMAT", "1", "INTO OUTFILE"])),
    ),
    max_size=12,
)


@given(PIECES)
def test_only_quoted_pieces_are_hidden(pieces: list[tuple[str, str]]) -> None:
    sql = " ".join(quoted(quote, text) if quote else text for quote, text in pieces)
    text = mask(sql)
    assert len(text.masked) == len(sql)
    shown = [word for quote, word in pieces if not quote]
    assert [word for word in text.masked.replace("'", " ").replace("_", " ").split() if word != ","] == [
        part for word in shown for part in word.split()
    ]
    odd = {
        word for quote, word in pieces if quote in {"`", '"'} and not (word.isidentifier() and word.isascii())
    }
    assert text.odd_names == odd


@given(st.text(alphabet="a'\\`\n\t\0", max_size=20))
def test_unquoting_gives_the_text_back(text: str) -> None:
    assert unquote(quoted("'", text)) == text


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1 -- x",
        "SELECT /* x */ 1",
        "SELECT 1 # x",
        "SELECT $$x$$",
        "SELECT 'x",
        "SELECT `x",
        "SELECT “x”",
    ],
)
def test_what_formatted_text_never_has_is_refused(sql: str) -> None:
    with pytest.raises(QueryFailed):
        mask(sql)
