"""What a real Envoy says of protocols, bytes and mirrored requests."""

from collections import Counter
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from schemas import otlp
from schemas.otlp.semantics import PROTOCOLS
from tests.support.kafka.ports import reserve_port
from tests.support.mesh.bootstrap import LOOPBACK, Listener, Proxy, Route, Upstream
from tests.support.mesh.mesh import application, running_envoys
from tests.support.mesh.record import running_recorder

pytestmark = pytest.mark.component("envoy")

SERVER, CLIENT = 2, 3
BODY, ANSWER = b"x" * 700, b"y" * 42
TIMES = 3


async def _answer(request: web.Request) -> web.Response:
    await request.read()
    return web.Response(body=ANSWER, headers={"Content-Type": request.headers["Content-Type"]})


@pytest.mark.parametrize("spawn_upstream_span", [False, True])
async def test_real_envoys_say_protocol_bytes_and_mirror(tmp_path: Path, spawn_upstream_span: bool) -> None:
    outbound, inbound, app, admin, other_admin = (reserve_port() for _ in range(5))
    server = Proxy(
        "server-0",
        "server",
        "v1",
        other_admin,
        (Listener(inbound, "INBOUND", (Route("in", "/", (("app", 1),)),)),),
        (Upstream("app", (app,)),),
    )
    routes = (Route("mirrored", "/", (("server", 1),), mirror="shadow"),)
    caller = Proxy(
        "caller-0",
        "caller",
        "v1",
        admin,
        (Listener(outbound, "OUTBOUND", routes, spawn_upstream_span),),
        (Upstream("server", (inbound,)), Upstream("shadow", (inbound,))),
    )
    async with (
        application(app, _answer),
        running_recorder() as recorder,
        running_envoys((server, caller), tmp_path, recorder.port) as envoys,
        aiohttp.ClientSession(f"http://{LOOPBACK}:{outbound}") as client,
    ):
        for kind in ("text/plain", "application/grpc"):
            for _ in range(TIMES):
                headers = {"Content-Type": kind, "Host": "server.shop:8080"}
                async with client.post("/a.Service/Method", data=BODY, headers=headers) as response:
                    await response.read()
        await envoys.exported()
        batch = otlp.decode_spans(recorder.requests["traces"])
    names = batch.strings.take(batch.spans.column("name")).to_pylist()
    rows = batch.spans.select(["kind", "protocol", "request_bytes", "response_bytes", "mirrored"]).to_pylist()
    found = Counter(
        (name.split(" ")[0], row["kind"], PROTOCOLS[row["protocol"]], row["request_bytes"], row["response_bytes"], row["mirrored"])
        for name, row in zip(names, rows, strict=True)
    )  # fmt: skip
    sizes = (len(BODY), len(ANSWER))
    expected = {("mirror", CLIENT, "http", 0, 0, True): 2 * TIMES}  # the caller's span of a mirrored request
    for protocol in ("http", "grpc"):
        expected |= {
            ("egress", SERVER if spawn_upstream_span else CLIENT, protocol, *sizes, False): TIMES,
            ("ingress", SERVER, protocol, *sizes, False): TIMES,
            ("ingress", SERVER, protocol, *sizes, True): TIMES,
        }
    if spawn_upstream_span:  # an attempt's span says neither that it was gRPC nor how large it was
        expected |= {("router", CLIENT, "http", 0, 0, False): 2 * TIMES}
    assert found == expected
