"""Forms, as urllib3 (under clickhouse-connect) writes them."""

from email.errors import MessageError

import pytest
from hypothesis import given
from hypothesis import strategies as st
from urllib3.filepost import encode_multipart_formdata

from console.clickhouse.form import MAX_FIELDS, HasFile, NotForm, parse_form
from tests.console.plain_http import SameAnswer, ask, request, serving

NAMES = st.from_regex(r"[a-zA-Z_][a-zA-Z0-9_.]{0,20}", fullmatch=True)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)


@given(st.lists(st.tuples(NAMES, TEXTS), min_size=1, max_size=5))
def test_fields_are_read_as_they_were_written(fields: list[tuple[str, str]]) -> None:
    assert parse(encode_multipart_formdata(fields)) == fields


def parse(written: tuple[bytes, str]) -> list[tuple[str, str]]:
    return parse_form(written[1], written[0])


@given(st.binary(max_size=200))
def test_junk_is_refused(junk: bytes) -> None:
    try:
        fields = parse_form("multipart/form-data; boundary=b", b"--b\r\n" + junk)
    except NotForm:
        return
    except MessageError as error:
        pytest.fail(f"{error!r} is no answer")
    assert all(name.isascii() for name, _ in fields)


def test_files_and_floods_are_refused() -> None:
    with pytest.raises(HasFile):
        parse(encode_multipart_formdata({"t": ("rows.tsv", b"1")}))
    with pytest.raises(NotForm, match=str(MAX_FIELDS)):
        parse(encode_multipart_formdata([("a", "")] * (MAX_FIELDS + 1)))


async def test_a_form_asks_a_query() -> None:
    fields = {"query": "SELECT {a:String},\n{b:String}", "param_a": "it\r\ns", "param_b": "\N{SNOWMAN}"}
    body, content_type = encode_multipart_formdata(fields)
    engine = SameAnswer()
    async with serving(engine) as server:
        reply = await ask(server, request("/?database=system", body, f"Content-Type: {content_type}"))
    assert reply.status == 200
    (query,) = engine.asked
    assert (query.sql, query.database) == (fields["query"], "system")
    assert query.parameters == {"a": "it\r\ns", "b": "\N{SNOWMAN}"}
