"""Metrics for Prometheus; the one module that imports prometheus_client."""

from collections.abc import Callable

from effnet.runtime.errors import UserError
from effnet.runtime.extras import install_command

try:
    import prometheus_client as prometheus
except ImportError:
    raise UserError(
        f"effnet serve needs prometheus_client, which is not installed: {install_command('serve')}"
    ) from None

CONTENT_TYPE = prometheus.CONTENT_TYPE_LATEST
_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """A server's counts and times."""

    def __init__(self) -> None:
        into = self.registry = prometheus.CollectorRegistry()
        prometheus.ProcessCollector(registry=into)
        self._requests = prometheus.Counter(
            "effnet_requests", "Requests by path and status", ["path", "status"], registry=into
        )
        self._seconds = prometheus.Histogram(
            "effnet_request_seconds",
            "Seconds from a request's head to its answer",
            ["path"],
            buckets=_SECONDS,
            registry=into,
        )
        self._images = prometheus.Counter(
            "effnet_images",
            "Images by model, and by whether they were classified",
            ["model", "result"],
            registry=into,
        )
        self._batches = prometheus.Histogram(
            "effnet_batch_size", "Images computed together", ["model"], buckets=_BATCHES, registry=into
        )
        self._compute = prometheus.Histogram(
            "effnet_batch_seconds",
            "Seconds for a batch on the engine",
            ["model"],
            buckets=_SECONDS,
            registry=into,
        )
        self._reloads = prometheus.Counter(
            "effnet_model_reloads", "Models opened again, by result", ["model", "result"], registry=into
        )
        self.waiting = prometheus.Gauge(
            "effnet_images_waiting", "Images that wait or are computed", registry=into
        )

    def request(self, path: str, status: int, seconds: float) -> None:
        """Count a request that has been answered."""
        self._requests.labels(path, status).inc()
        self._seconds.labels(path).observe(seconds)

    def image(self, model: str, *, is_good: bool) -> None:
        """Count an image that was classified, or that could not be decoded."""
        self._images.labels(model, "classified" if is_good else "refused").inc()

    def batches_of(self, model: str) -> Callable[[int, float], None]:
        """Return what counts a batch of a model: its size, and the seconds that it took."""
        sizes, seconds = self._batches.labels(model), self._compute.labels(model)

        def observe(size: int, took: float) -> None:
            sizes.observe(size)
            seconds.observe(took)

        return observe

    def reloads(self, model: str, *, is_good: bool) -> None:
        """Count a model that was opened again, or could not be."""
        self._reloads.labels(model, "opened" if is_good else "failed").inc()

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        text: bytes = prometheus.generate_latest(self.registry)
        return text
