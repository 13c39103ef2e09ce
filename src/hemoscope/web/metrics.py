"""Metrics for Prometheus: requests by route template, never by address, and the state of the queue.

Requests are counted by each process; the queue is read from the database at each scrape, so all processes agree.
"""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from hemoscope.store.store import Store
from hemoscope.store.values import Counts, OutboxCounts

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1.0, 2.5, 10.0, 60.0)


class Metrics:
    """The registry of one application."""

    def __init__(self, store: Store) -> None:
        """Register all metrics in a separate registry, so that applications in one process do not collide."""
        self._registry = CollectorRegistry()
        names = ("method", "route", "status")
        self._requests = Counter("hemoscope_http_requests", "Requests answered", names, registry=self._registry)
        self._seconds = Histogram(
            "hemoscope_http_request_seconds",
            "Time to the end of the answer",
            ("method", "route"),
            buckets=_SECONDS,
            registry=self._registry,
        )
        ProcessCollector(registry=self._registry)
        self._registry.register(_Queue(store))

    def record(self, *, method: str, route: str, status: int, seconds: float) -> None:
        """Count one answered request."""
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(method, route).observe(seconds)

    def text(self) -> bytes:
        """Everything in Prometheus' text format. Raises StoreError ``database_unreachable``."""
        return generate_latest(self._registry)


class _Queue(Collector):
    """Reads the store's counts at each scrape."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def describe(self) -> Iterator[Metric]:
        """Return nothing, so that registration does not query the database."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Yield the queue, the studies by state, the workers, the feedback and the results for a PACS."""
        counts = self._store.counts()
        yield _gauge("hemoscope_queue_depth", "Uploads that wait for a worker", counts.queue_depth)
        yield _gauge("hemoscope_uploads_running", "Uploads that a worker reads", counts.running)
        waiting = counts.oldest_waiting_s or 0.0
        yield _gauge("hemoscope_oldest_waiting_seconds", "Age of the oldest upload in the queue", waiting)
        yield _gauge("hemoscope_workers", "Workers with a fresh heartbeat", len(counts.workers))
        yield _gauge("hemoscope_studies_deleted", "Studies ever deleted", counts.deleted)
        yield from _by_name(counts)
        yield from _results(self._store.deliveries.counts())


def _results(counts: OutboxCounts) -> Iterator[Metric]:
    results = GaugeMetricFamily("hemoscope_results", "Results for a PACS, by what became of them", labels=("state",))
    for state in ("waiting", "sent", "delivered", "committed", "failed"):
        results.add_metric((state,), getattr(counts, state))
    yield results
    oldest = counts.oldest_waiting_s or 0.0
    yield _gauge("hemoscope_oldest_result_seconds", "Age of the oldest result that is not delivered", oldest)


def _by_name(counts: Counts) -> Iterator[Metric]:
    studies = GaugeMetricFamily("hemoscope_studies", "Studies by state", labels=("state",))
    for state, number in counts.studies.items():
        studies.add_metric((state.value,), number)
    yield studies
    feedback = GaugeMetricFamily("hemoscope_feedback", "Feedback ever given, by verdict", labels=("verdict",))
    for verdict, number in counts.feedback.items():
        feedback.add_metric((verdict.value,), number)
    yield feedback


def _gauge(name: str, meaning: str, value: float) -> Metric:
    return GaugeMetricFamily(name, meaning, value=value)
