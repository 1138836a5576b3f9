"""Certificates: each has a row when it is new, and again from time to time."""

from tests.processors.points.counters import ENVOY, T0_S, Number, payload, rows


def test_each_rotated_certificate_has_a_row_at_once() -> None:
    """Whether it is its turn to be written again or not."""
    name = "listener.ssl.certificate.expiration_unix_time_seconds"

    def flush(time_s: int, ends_s: int) -> tuple[float, bytes]:
        numbers = [
            Number(name, {"envoy.listener_address": f"l{at}", "envoy.tls_certificate": "c"}, T0_S + ends_s, time_s, gauge=True)
            for at in range(20)
        ]  # fmt: skip
        return time_s, payload({**ENVOY, "service.name": "a"}, numbers)

    found = rows([flush(1, 100_000), flush(6, 100_000), flush(11, 200_000), flush(16, 200_000)])[
        "certificates"
    ]
    new = [row for row in found if row["lifetime_s"]]
    assert {(row["not_after"] - T0_S, row["lifetime_s"], row["first_seen"] - T0_S) for row in new} == {(200_000, 199_989, 11)}  # fmt: skip
    assert len(new) == len({row["name"] for row in new}) == 20
    assert len(found) < 4 * 20, "not each time"
