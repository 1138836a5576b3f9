"""Each test that takes ``decoder`` runs with the reference and with native code."""

from types import ModuleType

import pytest

from schemas import otlp


@pytest.fixture(params=["reference", pytest.param("native", marks=pytest.mark.component("native"))])
def decoder(request: pytest.FixtureRequest) -> ModuleType:
    """A decoder: decode_spans, decode_details, split."""
    module: ModuleType = otlp.load(request.param)[1]
    return module
