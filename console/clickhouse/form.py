"""Forms (multipart/form-data, RFC 7578), read by Python's own parser of MIME messages. No I/O here."""

from email import policy
from email.message import Message
from email.parser import BytesParser

MAX_FIELDS = 1000

_PLAIN = frozenset({"", "7bit", "8bit", "binary"})


class NotForm(ValueError):
    """The body is not such a form; the text says why."""


class HasFile(NotForm):
    """A field is a file."""


def parse_form(content_type: str, body: bytes) -> list[tuple[str, str]]:
    """Names and texts of the fields. Raises NotForm."""
    head = b"Content-Type: " + content_type.encode(errors="surrogateescape") + b"\r\n\r\n"
    boundary = _parser.parsebytes(head, headersonly=True).get_boundary()
    if not boundary:
        raise NotForm("its Content-Type has no boundary")
    if body.count(b"--" + boundary.encode(errors="surrogateescape")) > MAX_FIELDS + 1:
        raise NotForm(f"it has more than {MAX_FIELDS} fields")
    form = _parser.parsebytes(head + body)
    if form.defects or not form.is_multipart():
        raise NotForm("it has no fields, or no end")
    return [_field(part) for part in form.get_payload() if isinstance(part, Message)]


def _field(part: Message) -> tuple[str, str]:
    name = part.get_param("name", header="content-disposition")
    encoding = str(part.get("Content-Transfer-Encoding", "")).lower()
    charset = part.get_content_charset("utf-8")
    ascii_only = all(isinstance(value, str) for value in part.values())  # else the library makes a guess
    if not ascii_only or part.get_content_disposition() != "form-data" or not isinstance(name, str):
        raise NotForm("a field has no name, or headers that are not ASCII")
    if part.get_filename() is not None:
        raise HasFile("a field is a file")
    if encoding not in _PLAIN or charset not in {"utf-8", "us-ascii"} or part.is_multipart() or part.defects:
        raise NotForm("a field is encoded; send plain UTF-8 text")
    content = part.get_payload(decode=True)
    assert isinstance(content, bytes)
    try:
        return name, content.decode()
    except UnicodeDecodeError:
        raise NotForm("a field is not UTF-8 text") from None


_parser = BytesParser(policy=policy.compat32)
