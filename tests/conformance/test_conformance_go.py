"""Senders in Go: OpenTelemetry's SDK and telemetrygen, and grpc-go itself; in plain text, TLS, mTLS and with
tokens.
"""

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from tests.support.go import build
from tests.support.pki import TOKEN, Pki
from tests.support.receiving import span_ids
from tests.support.served import LONG_S, Served

pytestmark = [pytest.mark.component("go"), pytest.mark.timeout(900)]  # the first build fetches modules

SPANS = 1000
SIGNALS = ("traces", "metrics", "logs")


@dataclass(frozen=True)
class Kind:
    """How a receiver is reached: settings and the client's flags."""

    tls: bool = False
    mtls: bool = False
    tokens: bool = False

    def settings(self, pki: Pki) -> dict[str, Any]:
        return pki.settings(tls=self.tls, mtls=self.mtls, tokens=self.tokens)

    def go_client(self, pki: Pki) -> list[str]:
        ca, certificate, key = map(str, pki.client_files())
        flags = [f"-ca={ca}"] if self.tls or self.mtls else []
        flags += [f"-cert={certificate}", f"-key={key}"] if self.mtls else []
        return flags + ([f"-token={TOKEN}"] if self.tokens else [])

    def telemetrygen(self, pki: Pki) -> list[str]:
        ca, certificate, key = map(str, pki.client_files())
        flags = ["--ca-cert", ca] if self.tls or self.mtls else ["--otlp-insecure"]
        flags += ["--mtls", "--client-cert", certificate, "--client-key", key] if self.mtls else []
        return flags + (["--otlp-header", f'authorization="Bearer {TOKEN}"'] if self.tokens else [])


KINDS = {
    "plain": Kind(),
    "tls": Kind(tls=True),
    "mtls": Kind(mtls=True),
    "token": Kind(tokens=True),
    "mtls and token": Kind(mtls=True, tokens=True),
}


def run(program: str, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [build(program), *arguments], check=False, capture_output=True, text=True, timeout=LONG_S * 2
    )


def said_by(program: str, arguments: Sequence[str]) -> list[str]:
    """The lines of its standard output. Fails where the program does."""
    done = run(program, arguments)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()


@pytest.mark.parametrize("kind", KINDS)
def test_the_sdk_delivers(tmp_path: Path, receiver: str, kind: str) -> None:
    """Over gRPC and HTTP, with gzip and without."""
    pki = Pki(tmp_path)
    sent: list[str] = []
    with Served(tmp_path / "served", receiver, **KINDS[kind].settings(pki)) as served:
        ports = [f"-grpc={served.target}", f"-http=127.0.0.1:{served.http_port}", f"-spans={SPANS}"]
        for protocol, gzip in product(("grpc", "http"), ("true", "false")):
            sent += said_by(
                "go_client",
                ["sdk", *ports, f"-protocol={protocol}", f"-gzip={gzip}", *KINDS[kind].go_client(pki)],
            )
        assert served.stop() == 0
        assert len(sent) == 4 * SPANS
        assert sorted(identifier.hex() for identifier in served.span_ids()) == sorted(sent)


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_the_sdk_is_answered_that_it_may_not(tmp_path: Path, receiver: str, protocol: str) -> None:
    pki = Pki(tmp_path)
    with Served(tmp_path / "served", receiver, **pki.settings(tokens=True)) as served:
        done = run(
            "go_client",
            [
                "sdk",
                f"-grpc={served.target}",
                f"-http=127.0.0.1:{served.http_port}",
                f"-protocol={protocol}",
                "-spans=10",
            ],
        )
        assert done.returncode != 0
        assert "Unauthenticated" in done.stderr or "401" in done.stderr
        assert served.stop() == 0
        assert served.span_ids() == []


@pytest.mark.parametrize("kind", ["plain", "mtls and token"])
def test_telemetrygen_delivers(tmp_path: Path, receiver: str, kind: str) -> None:
    """Each signal, over gRPC and HTTP."""
    pki = Pki(tmp_path)
    with Served(tmp_path / "served", receiver, **KINDS[kind].settings(pki)) as served:
        over = {
            "grpc": [f"localhost:{served.grpc_port}"],
            "http": [f"localhost:{served.http_port}", "--otlp-http"],
        }
        for signal, protocol in product(SIGNALS, over):
            flags = [
                "--rate",
                "0",
                "--workers",
                "2",
                f"--{signal}",
                "300",
                "--otlp-endpoint",
                *over[protocol],
            ]
            said_by("telemetrygen", [signal, *flags, *KINDS[kind].telemetrygen(pki)])
        assert served.stop() == 0
        for signal in SIGNALS:
            assert served.counts(signal) >= 2 * 2 * 300, signal


@pytest.mark.parametrize("kind", ["plain", "mtls and token"])
def test_each_kind_of_call_has_its_status(tmp_path: Path, receiver: str, kind: str) -> None:
    pki = Pki(tmp_path)
    with Served(tmp_path / "served", receiver, max_message="4MiB", **KINDS[kind].settings(pki)) as served:
        flags = [f"-grpc={served.target}", "-first=1", *KINDS[kind].go_client(pki)]
        statuses = dict(line.split(": ", 1) for line in said_by("go_client", ["calls", *flags]))
        assert statuses == {
            "health": "OK SERVING",
            "health of a service": "OK SERVING",
            "health of nobody": "NotFound",
            "watch": "OK SERVING",
            "unknown method": "Unimplemented",
            "export without a token": "Unauthenticated" if KINDS[kind].tokens else "OK",
            "export": "OK",
            "gzip": "OK",
            "3 MB": "OK",
            "8 MB": "ResourceExhausted",
            "8 MB, gzip": "ResourceExhausted",
            "one bad id of two": "OK 1",
            "too late": "DeadlineExceeded",
        }
        assert served.stop() == 0
        first = 2 if KINDS[kind].tokens else 1
        assert sorted(served.span_ids()) == span_ids(first - 1, 1023 - first)
