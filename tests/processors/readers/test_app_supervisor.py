"""Agents that a rebalance cancels are started again: Faust's own limit would end the worker."""

from mode.supervisors import OneForOneSupervisor

from processors.readers.faust_consumer import Supervisor


def restarts_at_once(supervisor: OneForOneSupervisor) -> int:
    allowed = 0
    while allowed < 1_000 and supervisor._bucket.pour():
        allowed += 1
    return allowed


def test_a_rebalance_may_cancel_every_agent_of_a_worker_at_once() -> None:
    assert restarts_at_once(Supervisor(max_restarts=100.0, over=1.0)) == 1_000


def test_fausts_own_supervisor_would_not_do() -> None:
    assert restarts_at_once(OneForOneSupervisor(max_restarts=100.0, over=1.0)) < 100
