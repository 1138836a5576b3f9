"""The receivers under test: every test of a receiver runs on each of them."""

from functools import partial

import pytest

from tests.support.receiving import RECEIVERS, Serve, receiving


@pytest.fixture(params=RECEIVERS)
def serve(request: pytest.FixtureRequest) -> Serve:
    """``serve(log, **settings)``: a running receiver, in its turn of each kind."""
    return partial(receiving, receiver=request.param)
