"""Tests. A package, so that test files may import helpers as ``tests.support.mesh.mesh``."""
