"""A server that tests of both folders share."""

from tests.storage.conftest import store_server

__all__ = ["store_server"]
