"""Real senders of one trace with a text that is not Unicode, to one ``meshflow up``: curl, and SDKs of Node,
Java, Go and Python. The text is mended and counted where the sender lets it out; all else arrives as it was.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.support import go, java, node
from tests.support.up import KEEP_ALL, LONG_S, Up, running_up

pytestmark = pytest.mark.timeout(900)  # the first build fetches modules

MENDED = "caf\ufffd!"


@dataclass(frozen=True)
class Sender:
    """A command that sends the trace of a service, and what its text comes to."""

    component: str
    command: Callable[[Up, str], list[str]]
    body: Callable[[str], bytes] = lambda _: b""
    """Standard input, by service."""
    noise: str = MENDED
    repaired: int = 1
    """Texts that were mended here: none where the SDK's own encoder has done so."""


def over(
    program: Callable[..., list[str]], protocol: str, compression: str
) -> Callable[[Up, str], list[str]]:
    """A client of the form ``PROGRAM SERVICE PROTOCOL ENDPOINT COMPRESSION``."""

    def command(up: Up, service: str) -> list[str]:
        endpoint = up.grpc if protocol == "grpc" else up.http.removeprefix("http://")
        return program(service, protocol, endpoint, compression)

    return command


def in_go(up: Up, service: str) -> list[str]:
    return [str(go.build("go_client")), "noise", "-raw", f"-grpc={up.grpc}", f"-service={service}"]


def in_python(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "tests.support.python_client", *arguments]


def curl(content_type: str) -> Callable[[Up, str], list[str]]:
    def command(up: Up, _: str) -> list[str]:
        header = f"Content-Type: {content_type}"
        return ["curl", "-sS", "--fail", "-H", header, "--data-binary", "@-", f"{up.http}/v1/traces"]

    return command


def as_json(noise: bytes) -> Callable[[str], bytes]:
    """The trace as a person writes it, with the bytes of a text."""

    def body(service: str) -> bytes:
        checkout = {
            "traceId": f"{int.from_bytes(service.encode()[:16]):032x}",
            "spanId": "00000000000000a1",
            "name": "checkout",
            "kind": 2,
            "status": {"code": 2, "message": "no stock"},
            "events": [{"name": "reserved"}],
            "attributes": [attribute("http.response.status_code", intValue="500")],
        }
        call = {
            **checkout,
            "spanId": "00000000000000a2",
            "parentSpanId": "00000000000000a1",
            "name": "SELECT stock",
            "kind": 3,
            "status": {},
            "events": [],
            "attributes": [
                attribute("db.system.name", stringValue="postgresql"),
                attribute("noise", stringValue="PLACE"),
            ],
        }
        resource = {"attributes": [attribute("service.name", stringValue=service)]}
        spans = {"resource": resource, "scopeSpans": [{"spans": [checkout, call]}]}
        return json.dumps({"resourceSpans": [spans]}).encode().replace(b"PLACE", noise)

    return body


def attribute(key: str, **value: str) -> dict[str, Any]:
    return {"key": key, "value": value}


JSON = "application/json"
LATIN_1 = as_json("caf\xe9!".encode("latin-1"))
SENDERS = {
    "node-grpc": Sender("node", over(node.command, "grpc", "none"), repaired=0),
    "node-http": Sender("node", over(node.command, "http", "gzip"), repaired=0),
    "node-json": Sender("node", over(node.command, "json", "gzip")),
    "java-grpc": Sender("java", over(java.command, "grpc", "gzip"), noise="caf?!", repaired=0),
    "java-http": Sender("java", over(java.command, "http", "none"), noise="caf?!", repaired=0),
    "go": Sender("go", in_go),
    "python-grpc": Sender("", over(in_python, "grpc", "gzip")),
    "python-http": Sender("", over(in_python, "http", "gzip")),
    "curl-escape": Sender("curl", curl(JSON), as_json(rb"caf\ud83d!")),
    "curl-bytes": Sender("curl", curl(JSON), LATIN_1),
    "curl-latin-1": Sender("curl", curl(f"{JSON}; charset=iso-8859-1"), LATIN_1),
}


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with running_up(tmp_path_factory.mktemp("senders"), KEEP_ALL, "--pane", "500ms", "--wait", "1") as up:
        yield up


def repaired(up: Up) -> int:
    return up.count("SELECT sum(repaired) FROM ledger WHERE topic = 'otlp_spans'")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.component(sender.component)] if sender.component else [])
        for name, sender in SENDERS.items()
    ],
)
def test_one_text_is_mended_and_the_rest_of_the_request_arrives(up: Up, name: str) -> None:
    sender, before = SENDERS[name], up.ledger()
    repaired_before = repaired(up)
    done = subprocess.run(
        sender.command(up, name), input=sender.body(name), check=False, capture_output=True, timeout=LONG_S
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    ledger = up.wait_for(before["received"] + 2)
    assert {key: ledger[key] - before[key] for key in ("received", "rejected", "duplicate", "kept")} == {
        "received": 2, "rejected": 0, "duplicate": 0, "kept": 2,
    }  # fmt: skip
    assert repaired(up) - repaired_before == sender.repaired
    spans = up.sql(
        "SELECT SpanName, SpanKind, StatusCode, StatusMessage, SpanAttributes['http.response.status_code'], `Events.Name`,"
        f" SpanAttributes['noise'] FROM otel_traces WHERE ServiceName = '{name}' ORDER BY SpanKind DESC"
    )
    assert spans == [
        ["checkout", "Server", "Error", "no stock", "500", ["reserved"], ""],
        ["SELECT stock", "Client", "Unset", "", "", [], sender.noise],
    ]
    assert up.sql(f"SELECT connection FROM edges_10s WHERE client_service = '{name}'") == [["database"]]


@pytest.mark.component("go")
def test_gos_sdk_itself_sends_no_such_text(up: Up) -> None:
    """Go's protobuf refuses to write it, and with it the whole batch: nothing of it can arrive."""
    flags = [f"-grpc={up.grpc}", "-service=go-itself"]
    done = subprocess.run(
        [go.build("go_client"), "noise", *flags], check=False, capture_output=True, text=True, timeout=LONG_S
    )
    assert done.returncode != 0
    assert "invalid UTF-8" in done.stderr
