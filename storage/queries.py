"""Named queries that the command line and the console show. Columns are qualified: a plain name would mean
the alias of the same name.
"""

from datetime import timedelta

SERVICES = """\
SELECT
    service,
    sum(t.requests) AS requests,
    round(sum(t.requests) / {seconds}, 2) AS requests_per_s,
    round(100 * sum(t.errors) / greatest(1, sum(t.requests)), 2) AS error_percent,
    round(quantileOfHistogram(sumMap(t.duration_histogram), 0.5) / 1e6, 2) AS p50_ms,
    round(quantileOfHistogram(sumMap(t.duration_histogram), 0.99) / 1e6, 2) AS p99_ms
FROM service_traffic AS t
WHERE slot >= now('UTC') - {seconds}
GROUP BY service
ORDER BY requests DESC, service
LIMIT {limit}"""

EDGES = """\
SELECT
    client_service AS client,
    server_service AS server,
    sum(t.calls) AS calls,
    sum(t.unsent) AS unsent,
    sum(t.unanswered) AS unanswered,
    round(100 * sum(t.errors) / greatest(1, sum(t.attempts)), 2) AS error_percent,
    round(quantileOfHistogram(sumMap(t.client_histogram), 0.5) / 1e6, 2) AS p50_ms,
    round(quantileOfHistogram(sumMap(t.client_histogram), 0.99) / 1e6, 2) AS p99_ms
FROM edge_traffic AS t
WHERE slot >= now('UTC') - {seconds}
GROUP BY client, server
ORDER BY calls DESC, unsent DESC, unanswered DESC, client, server
LIMIT {limit}"""

LEDGER = """\
SELECT
    topic,
    sum(t.received) AS received,
    sum(t.rejected) AS rejected,
    sum(t.duplicate) AS duplicate,
    sum(t.kept) AS kept,
    sum(t.dropped) AS dropped,
    sum(t.refused) AS refused,
    sum(t.lost) AS lost_records
FROM ledger AS t
WHERE time >= now('UTC') - {seconds}
GROUP BY topic
ORDER BY topic"""


def services(last: timedelta, limit: int = 50) -> str:
    """Services by requests: rate, errors, quantiles. A request counts where it enters a service."""
    return SERVICES.format(seconds=_seconds(last), limit=int(limit))


def edges(last: timedelta, limit: int = 50) -> str:
    """Who calls whom: calls that arrived, that were refused at the caller, that nobody answered, errors,
    quantiles as the caller saw them.
    """
    return EDGES.format(seconds=_seconds(last), limit=int(limit))


def ledger(last: timedelta) -> str:
    """What came in and what became of it."""
    return LEDGER.format(seconds=_seconds(last))


def _seconds(last: timedelta) -> int:
    return max(1, int(last.total_seconds()))
