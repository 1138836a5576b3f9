"""Who may reach the SQL port by a browser: only its own names, and no page of another site."""

import pytest
from pydantic import ValidationError

from console.names import Names, is_loopback
from console.settings import ConsoleSettings
from tests.console.plain_http import ask, request, serving

PATHS = ("/", "/ping", "/replicas_status", "/metrics", "/nowhere", "/?query=SELECT+1")
OWN_HOSTS = ("localhost", "LOCALHOST.:8123", "127.0.0.1:1", "127.9.9.9", "[::1]:8123", "[::ffff:127.0.0.1]")
FOREIGN_HOSTS = (
    "evil.example",
    "localhost.evil.example:8123",
    "10.1.2.3",
    "[2001:db8::1]",
    "evil localhost",
    "a@localhost",
    "",
)


@pytest.mark.parametrize("host", FOREIGN_HOSTS)
async def test_a_foreign_host_reads_nothing(host: str) -> None:
    async with serving() as server:
        for path in PATHS:
            reply = await ask(server, request(path, host=host))
            assert reply.status == 421, path
            assert b"console.hosts" in reply.body
            assert b"meshflow_" not in reply.body


async def test_a_host_in_the_url_counts_too() -> None:
    async with serving() as server:
        assert (await ask(server, request("http://evil.example/?query=SELECT"))).status == 421
        assert (await ask(server, request("http://localhost/?query=SELECT"))).status == 200


async def test_own_hosts_are_answered() -> None:
    async with serving(hosts=("Meshflow", "sql.example.org", "2001:db8::1")) as server:
        for host in (*OWN_HOSTS, "meshflow:8123", "SQL.example.org", "[2001:DB8::1]:80"):
            assert (await ask(server, request(host=host))).status == 200, host
        assert (await ask(server, request(host="mesh.flow"))).status == 421


async def test_a_balancer_that_names_no_host_is_answered() -> None:
    async with serving() as server:
        assert (await ask(server, b"GET /ping HTTP/1.0\r\n\r\n")).status == 200
        assert (await ask(server, b"GET /ping HTTP/1.1\r\n\r\n")).status == 400


def test_every_address_is_one_of_a_port_on_all_of_them() -> None:
    for listening in ("0.0.0.0", "::", ""):
        names = Names(listening, ())
        assert names.include("10.1.2.3:8123")
        assert names.include("[2001:db8::1]")
        assert not names.include("evil.example")
    assert Names("10.1.2.3", ()).include("10.1.2.3:8123")
    assert not Names("10.1.2.3", ()).include("10.1.2.4")
    assert Names("node7.internal", ()).include("node7.internal:8123")


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "https://localhost.evil.example:8123", "null", "file://", "http://", "localhost"],
)
async def test_a_foreign_page_neither_reads_nor_writes(origin: str) -> None:
    async with serving() as server:
        for path in PATHS:
            simple = request(path, b"SELECT 1", "Content-Type: text/plain", f"Origin: {origin}")
            reply = await ask(server, simple)
            assert reply.status == 403, path
            assert "access-control-allow-origin" not in reply.headers
        assert (await ask(server, request("/", b"", f"Origin: {origin}", method="OPTIONS"))).status == 403
        assert (
            await ask(server, request("/?query=SELECT+1", b"", f"Origin: {origin}", method="GET"))
        ).status == 403
        twice = request("/", b"SELECT 1", "Origin: http://localhost", f"Origin: {origin}")
        assert (await ask(server, twice)).status == 403


@pytest.mark.parametrize("site", ["cross-site", "same-site", "something-new"])
async def test_a_request_from_another_site_is_refused(site: str) -> None:
    async with serving() as server:
        for path in PATHS:
            reply = await ask(server, request(path, b"", f"Sec-Fetch-Site: {site}", method="GET"))
            assert reply.status == 403, path


async def test_own_pages_and_programs_may_ask() -> None:
    async with serving(hosts=("sql.example.org",)) as server:
        for origin in (
            "http://localhost:8123",
            "http://127.0.0.1:8123",
            "https://sql.example.org",
            "http://[::1]",
        ):
            assert (await ask(server, request("/", b"SELECT 1", f"Origin: {origin}"))).status == 200, origin
        for site in ("same-origin", "none"):
            assert (await ask(server, request("/", b"SELECT 1", f"Sec-Fetch-Site: {site}"))).status == 200
        typed = request("/", b"", "Sec-Fetch-Site: none", "Accept: text/html", method="GET")
        assert (await ask(server, typed)).body == b"Ok.\n"


async def test_no_browser_guesses_what_an_answer_is() -> None:
    asked = (
        request("/"),
        request("/metrics", b"", method="GET"),
        request("/nowhere"),
        request("/", method="PUT"),
        request("/", b"\xff"),
        request("/", host="evil.example"),
        request("/", b"SELECT 1", "Origin: null"),
    )
    async with serving() as server:
        for sent in asked:
            headers = (await ask(server, sent)).headers
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["cross-origin-resource-policy"] == "same-origin"
            assert headers["x-frame-options"] == "DENY"
            assert headers["cache-control"] == "no-store"


@pytest.mark.parametrize("host", ["http://a", "a:8123", "a/b", "", "[::1]", "*"])
def test_a_setting_that_is_no_host_is_refused(host: str) -> None:
    with pytest.raises(ValidationError, match="without scheme and port"):
        ConsoleSettings(hosts=(host,))


def test_what_only_this_machine_reaches() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.1.2.3", "::1", "localhost", "::ffff:127.0.0.1")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "", "10.1.2.3", "node7", "2001:db8::1")))
