"""/metrics, for Prometheus: what this process did, and how the pipeline is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import GaugeMetricFamily

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stackctl.core.errors import StackctlError
    from stackctl.server.history import History
    from stackctl.sync.changes.sequencer import SequenceResult
    from stackctl.sync.engine.database_sync import DatabaseResult
    from stackctl.sync.reports import Reports
    from stackctl.sync.status import Status

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """Counters of one process, which its history hears of as well; called by several threads."""

    def __init__(self, history: History) -> None:
        self.history = history
        disable_created_metrics()  # a second series for each, of when this process began
        self._registry = CollectorRegistry()
        own: Any = {"registry": self._registry}
        self._stamped = Counter("stackctl_rows_stamped", "Changed rows that were given a sequence id.", **own)
        self._batches = Counter("stackctl_batches", "Batches, by stage.", ("stage",), **own)
        self._sent = Counter("stackctl_rows_sent", "Rows sent to external databases.", ("mapping", "action"), **own)
        self._errors = Counter("stackctl_sync_errors", "Attempts that failed, by error code.", ("code",), **own)
        self._requests = Histogram(
            "stackctl_request_duration_seconds", "Time taken by requests.", ("route", "status"), buckets=_SECONDS, **own
        )
        self._unread = Counter("stackctl_status_failures", "Times that the status could not be read.", **own)
        self._lost = Counter("stackctl_log_lines_lost", "Lines of the log that could not be written.", **own)
        for stage in ("sequencer", "engine"):
            self._batches.labels(stage)

    def count_request(self, route: str, status: int, seconds: float) -> None:
        self._requests.labels(route, str(status)).observe(seconds)

    def count_failed_reading(self) -> None:
        self._unread.inc()

    def count_lost_line(self) -> None:
        self._lost.inc()

    def watch(self, reports: Reports) -> Reports:
        """The same reports, counted as well."""

        def sequenced(result: SequenceResult) -> None:
            self._stamped.inc(result.rows)
            self.history.add("stamped", result.rows)
            self._batches.labels("sequencer").inc(result.batches)
            reports.sequenced(result)

        def synced(result: DatabaseResult) -> None:
            for one in result.mappings:
                self._batches.labels("engine").inc(one.batches)
                for action, rows in (("upserted", one.upserted), ("deleted", one.deleted)):
                    self.history.add("sent", rows)
                    if rows:
                        self._sent.labels(one.mapping, action).inc(rows)
                if one.error is not None:
                    self._errors.labels(one.error.code).inc()
            self.history.add("synced" if result.error is None else "errors", 1)
            if result.failed and result.error is not None:
                self._errors.labels(result.error.code).inc()
            reports.synced(result)

        def trouble(error: StackctlError) -> None:
            self._errors.labels(error.code).inc()
            reports.trouble(error)

        return replace(reports, sequenced=sequenced, synced=synced, trouble=trouble)

    def to_text(self, found: Status | None, *, by_tenancy: bool) -> bytes:
        """Everything in Prometheus' text format; without a status, what this process did alone."""
        text = generate_latest(self._registry)
        return text if found is None else text + generate_latest(_StatusMetrics(found, by_tenancy))


@dataclass(frozen=True)
class _StatusMetrics:
    """How the pipeline was when the status was read; it stands for a registry of its own."""

    found: Status
    by_tenancy: bool

    def collect(self) -> Iterator[GaugeMetricFamily]:
        found = self.found
        entries = GaugeMetricFamily("stackctl_queue_entries", "Queue entries and due databases.", labels=["state"])
        for state in ("pending", "in_flight", "stale", "dead"):
            entries.add_metric([state], getattr(found.queue, state))
        yield entries
        oldest = (found.queue.oldest_age_ms or 0) / 1000
        yield GaugeMetricFamily("stackctl_queue_oldest_age_seconds", "Age of the oldest of them.", oldest)
        fuses = GaugeMetricFamily("stackctl_fuse_on", "1 where a stage is switched on.", labels=["fuse"])
        for name in ("sequencer", "poller"):
            fuses.add_metric([name], float(getattr(found.fuses, name)))
        yield fuses
        unstamped = sum(table.pending for table in found.tables.values())
        yield GaugeMetricFamily("stackctl_rows_to_stamp", "Changed rows without a sequence id yet.", unstamped)
        yield GaugeMetricFamily("stackctl_status_timestamp_seconds", "When all this was read.",
                                found.generated_at.timestamp())  # fmt: skip
        labels = (["tenancy"] if self.by_tenancy else []) + ["database", "type"]
        backlog = GaugeMetricFamily("stackctl_backlog_rows", "Rows still to send.", labels=labels)
        lag = GaugeMetricFamily("stackctl_lag_seconds", "Age of the oldest stamp that is not sent.", labels=labels)
        failing = GaugeMetricFamily("stackctl_failing_databases", "Databases that fail.", labels=labels)
        for name, (rows, seconds, failures) in self._sum_up().items():
            backlog.add_metric(name, rows)
            lag.add_metric(name, seconds)
            failing.add_metric(name, failures)
        yield from (backlog, lag, failing)

    def _sum_up(self) -> dict[tuple[str, ...], tuple[int, float, int]]:
        """By labels: rows of all copies, the longest lag of one, and how many databases fail."""
        sums: dict[tuple[str, ...], tuple[int, float, int]] = {}
        for tenancy, databases in self.found.tenancies.items():
            for one in databases:
                name = (*((str(tenancy),) if self.by_tenancy else ()), one.database, one.type)
                rows, seconds, failures = sums.get(name, (0, 0.0, 0))
                own = max(((copy.lag_ms or 0) / 1000 for copy in one.mappings), default=0.0)
                sums[name] = (
                    rows + sum(copy.backlog for copy in one.mappings),
                    max(seconds, own),
                    failures + (one.status == "error"),
                )
        return sums
