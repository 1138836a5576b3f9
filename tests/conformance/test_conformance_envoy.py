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
