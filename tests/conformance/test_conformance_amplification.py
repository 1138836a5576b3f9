"""Small requests that would become large ones: what they make a receiver hold is measured."""

import gzip
import urllib.error
import urllib.request
from pathlib import Path

import grpc
import pytest

from ingest.http.encoding import PROTOBUF
from tests.support.others import assert_others_are_served
from tests.support.receiving import TRACES, large_resource, traces
from tests.support.served import LONG_S, Served

MIB = 1 << 20


def post(served: Served, body: bytes, encoding: str = "") -> int:
    """The status of a request over HTTP."""
    request = urllib.request.Request(f"http://127.0.0.1:{served.http_port}/v1/traces", body)
    request.add_header("Content-Type", PROTOBUF)
    if encoding:
        request.add_header("Content-Encoding", encoding)
    try:
        with urllib.request.urlopen(request, timeout=LONG_S) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        error.read()
        return error.code


def export(served: Served, body: bytes, compression: grpc.Compression | None = None) -> grpc.StatusCode:
    """The same over gRPC."""
    options = [("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(served.target, options) as channel:
        try:
            channel.unary_unary(TRACES)(body, timeout=LONG_S, compression=compression)
        except grpc.RpcError as error:
            code: grpc.StatusCode = error.code()
            return code
        return grpc.StatusCode.OK


def test_a_megabyte_does_not_become_hundreds(tmp_path: Path, receiver: str) -> None:
    """Of 1.1 MB each of 256 partitions would get 1 MiB; a buffer of 1 GiB would have room for that."""
    request = large_resource(2000, MIB)
    with Served(tmp_path, receiver, partitions=256, buffer_size="1GiB") as served:
        assert_others_are_served(served)
        assert post(served, traces(0, 500, padding=2000)) == 200
        before_bytes = served.rss_bytes()
        served.forget_peak()
        for _ in range(3):
            assert post(served, request) == 413
            assert post(served, gzip.compress(request), "gzip") == 413
            assert export(served, request) is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert export(served, request, grpc.Compression.Gzip) is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert served.peak_bytes() - before_bytes < 96 * MIB
        assert_others_are_served(served)
        assert served.stop() == 0
        assert served.header("rejected") == 12 * 2000, "each span is counted for the ledger"


@pytest.mark.parametrize("members", [2_000, 400_000])
def test_a_gzip_body_of_empty_members_is_refused_at_once(tmp_path: Path, receiver: str, members: int) -> None:
    """8 MB in members of 20 bytes. Others are served meanwhile."""
    body = gzip.compress(b"") * members
    with Served(tmp_path, receiver) as served:
        assert post(served, body, "gzip") == 400
        assert post(served, gzip.compress(traces(0, 1)) + gzip.compress(traces(1, 1)), "gzip") == 200
        assert_others_are_served(served)
        assert "Traceback" not in served.said


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_a_bomb_over_grpc_takes_no_more_than_the_limit(
    tmp_path: Path, receiver: str, compression: grpc.Compression
) -> None:
    with Served(tmp_path, receiver, max_message="8MiB") as served:
        assert post(served, traces(0, 500, padding=2000)) == 200
        before_bytes = served.rss_bytes()
        served.forget_peak()
        for _ in range(3):
            assert export(served, bytes(256 * MIB), compression) is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert served.peak_bytes() - before_bytes < 64 * MIB
        assert_others_are_served(served)


def test_a_refused_request_is_measured_before_it_is_copied(tmp_path: Path, receiver: str) -> None:
    """Of 8 MB each of 256 partitions would get 4 MB: not even the 16 times of 8 MB are copied that a request
    may take.
    """
    request = large_resource(2000, 4 * MIB) + large_resource(2000, 4 * MIB)
    with Served(tmp_path, receiver, partitions=256, buffer_size="1GiB") as served:
        assert post(served, traces(0, 500, padding=2000)) == 200
        before_bytes = served.rss_bytes()
        served.forget_peak()
        assert export(served, request) is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert served.peak_bytes() - before_bytes < 64 * MIB
        assert_others_are_served(served)


@pytest.mark.parametrize("level", [1, 9])
def test_a_bomb_over_http_takes_no_more_than_the_limit(tmp_path: Path, receiver: str, level: int) -> None:
    bomb = gzip.compress(bytes(256 * MIB), level)
    with Served(tmp_path, receiver, max_message="8MiB") as served:
        assert post(served, traces(0, 500, padding=2000)) == 200
        before_bytes = served.rss_bytes()
        served.forget_peak()
        assert post(served, bomb[: 4 * MIB], "gzip") == 413
        assert served.peak_bytes() - before_bytes < 64 * MIB
        assert_others_are_served(served)
