"""Benchmarks: ``python -m benchmarks.run`` (``make bench``) runs all of them; each program here also runs
alone.
"""
