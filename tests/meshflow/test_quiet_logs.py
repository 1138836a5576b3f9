"""Noise of Kafka's clients is thinned out, everything else passes."""

import logging

from meshflow.quiet_logs import Repetition


def record(name: str, line: int, level: int = logging.ERROR) -> logging.LogRecord:
    return logging.LogRecord(name, level, "client.py", line, "no %s", ("broker",), None)


def test_a_line_of_a_kafka_client_logs_once_in_a_while_and_says_how_often_it_was_silent() -> None:
    now_s = 0.0
    noise = Repetition(10.0, lambda: now_s)
    assert noise.filter(record("aiokafka.conn", 5))
    assert not noise.filter(record("aiokafka.conn", 5))
    assert not noise.filter(record("aiokafka.conn", 5))
    assert noise.filter(record("aiokafka.conn", 6)), "another line"
    assert noise.filter(record("aiokafka.conn", 5, logging.CRITICAL))
    now_s = 11.0
    again = record("aiokafka.conn", 5)
    assert noise.filter(again)
    assert again.getMessage() == "no broker (and 2 more like it)"


def test_meshflows_own_lines_always_pass() -> None:
    noise = Repetition(10.0, lambda: 0.0)
    assert all(noise.filter(record("processors.readers.faust", 5)) for _ in range(3))
