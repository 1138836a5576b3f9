"""How many examples Hypothesis tries: few in ``make test``, many in ``make soak``."""

import os
from typing import Any

from hypothesis import settings

TIMES = int(os.environ.get("MESHFLOW_TEST_EXAMPLES") or 1)
"""``make soak`` tries so many times more."""


def examples(number: int, **more: Any) -> settings:
    """As ``hypothesis.settings``: so many examples in ``make test``, each as long as it takes."""
    return settings(max_examples=number * TIMES, deadline=None, **more)
