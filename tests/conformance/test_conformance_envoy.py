"""Real Envoys as senders: spans, metrics and access logs arrive whole, in plain text and with client
certificate and token.
"""

import asyncio
from pathlib import Path

import pytest

from tests.support.mesh.bootstrap import Secure
from tests.support.mesh.mesh import running_mesh
from tests.support.pki import TOKEN, Pki
from tests.support.served import Served

pytestmark = pytest.mark.component("envoy")


@pytest.mark.parametrize("secured", [False, True], ids=["plain", "mtls and token"])
async def test_envoys_deliver(tmp_path: Path, receiver: str, secured: bool) -> None:
    pki = Pki(tmp_path)
    secure = Secure(*pki.client_files(), token=TOKEN) if secured else None
    settings = pki.settings(mtls=True, tokens=True) if secured else {}
    with Served(tmp_path / "served", receiver, max_connection_age="1s", **settings) as served:
        async with running_mesh(tmp_path, served.grpc_port, secure=secure) as mesh:
            await mesh.drive(rounds=2)
            exported = await mesh.exported()
        assert await asyncio.to_thread(served.stop) == 0
        counts = {
            signal: await asyncio.to_thread(served.counts, signal) for signal in ("traces", "metrics", "logs")
        }
        assert exported > 0
        assert counts["traces"] == exported
        assert counts["metrics"] > 0
        assert counts["logs"] > 0


async def test_a_user_agent_that_is_not_utf8_costs_no_span(tmp_path: Path, receiver: str) -> None:
    """Envoy writes the header's bytes into span and access log as they came."""
    with Served(tmp_path / "served", receiver) as served:
        async with running_mesh(tmp_path, served.grpc_port) as mesh:
            await mesh.drive(rounds=1)
            reader, writer = await asyncio.open_connection("127.0.0.1", mesh.front_port)
            writer.write(
                b"GET /order/1 HTTP/1.1\r\nHost: x\r\nUser-Agent: caf\xe9\r\nConnection: close\r\n\r\n"
            )
            assert await reader.read()
            writer.close()
            exported = await mesh.exported()
        assert await asyncio.to_thread(served.stop) == 0
        assert await asyncio.to_thread(served.counts, "traces") == exported
        assert await asyncio.to_thread(served.header, "repaired") > 0
        assert await asyncio.to_thread(served.header, "rejected") == 0


async def test_envoys_with_another_token_are_refused(tmp_path: Path, receiver: str) -> None:
    pki = Pki(tmp_path)
    secure = Secure(*pki.client_files(), token="not-the-right-one-at-all")
    with Served(tmp_path / "served", receiver, **pki.settings(mtls=True, tokens=True)) as served:
        async with running_mesh(tmp_path, served.grpc_port, secure=secure) as mesh:
            await mesh.drive(rounds=1)
            assert await mesh.exported() > 0
        assert await asyncio.to_thread(served.stop) == 0
        assert [
            await asyncio.to_thread(served.counts, signal) for signal in ("traces", "metrics", "logs")
        ] == [0, 0, 0]
