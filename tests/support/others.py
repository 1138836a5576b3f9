"""The other clients, which must be served whatever one peer does."""

import time

import grpc

from tests.support.receiving import TRACES, traces
from tests.support.served import LONG_S, Served

_PASSING = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
"""What a receiver that waits for nobody may answer on a busy machine."""

_OPTIONS = [("grpc.use_local_subchannel_pool", 1)]


def assert_others_are_served(served: Served, credentials: grpc.ChannelCredentials | None = None) -> None:
    """A client on a connection of its own has a request acknowledged. A busy machine may need some tries."""
    end_s = time.monotonic() + LONG_S
    target = served.target
    with (
        grpc.secure_channel(target, credentials, _OPTIONS)
        if credentials
        else grpc.insecure_channel(target, _OPTIONS) as channel
    ):
        export = channel.unary_unary(TRACES)
        while True:
            try:
                assert export(traces(1 << 40, 1), timeout=LONG_S, wait_for_ready=True) == b""
            except grpc.RpcError as error:
                if error.code() not in _PASSING or time.monotonic() > end_s:
                    raise
            else:
                return
