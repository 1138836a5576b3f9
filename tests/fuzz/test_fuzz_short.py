"""The fuzz target on its first inputs; ``python -m tests.fuzz.fuzz_otlp`` goes on from anywhere."""

import pytest

from tests.fuzz.fuzz_otlp import check


@pytest.mark.component("native")
def test_first_seeds() -> None:
    for seed in range(300):
        check(seed)
