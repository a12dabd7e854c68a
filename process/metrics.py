"""The figures of a process by Prometheus's conventions, in a registry for /metrics.

A process declares its metrics in a table, each with the figure of the log line that it is made of.
A counter ends in `_total`, a time is in seconds, a latency is a histogram.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from process.health import Health

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)


@dataclass(frozen=True)
class Metric:
    """One metric.

    figure: of the log line, or of `Metrics.observe` and `Metrics.count`.
    name: without `streamgcn_<process>_`, and of a counter without `_total`.
    kind: a `counter` rises with its figure, which is a sum since the start, or by `count`;
        a `histogram` is told each value by `observe`; `text` is a gauge of 1 whose label is the
        figure, a word.
    labels: of a counter that rises by `count`: the values of the label `outcome`.
    """

    figure: str
    kind: Literal["counter", "gauge", "histogram", "text"]
    name: str
    help: str
    labels: tuple[str, ...] = ()


class Metrics:
    """The metrics of one process. Whatever is not declared is not kept."""

    def __init__(self, process: str, declared: Sequence[Metric] = ()) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        build = Gauge(
            "streamgcn_build_info",
            "1, with the version of StreamGCN, of Python, and the process.",
            ["version", "python", "process"],
            registry=self.registry,
        )
        build.labels(_version(), platform.python_version(), process).set(1)
        self._ready = Gauge(
            "streamgcn_ready",
            "1 if the process can do its job, as /readyz says.",
            ["process"],
            registry=self.registry,
        ).labels(process)
        self._sums: dict[str, float] = {}  # figure -> what a counter was told last
        self._counters: dict[str, Counter] = {}
        self._gauges: dict[str, Gauge] = {}
        self._histograms: dict[str, Histogram] = {}
        self._texts: dict[str, Gauge] = {}
        for metric in declared:
            name, registry = f"streamgcn_{process}_{metric.name}", self.registry
            match metric.kind:
                case "counter":
                    labels = ["outcome"] if metric.labels else []
                    made = Counter(name, metric.help, labels, registry=registry)
                    for label in metric.labels:
                        made.labels(label)  # so that it is 0 before the first
                    self._counters[metric.figure] = made
                case "gauge":
                    self._gauges[metric.figure] = Gauge(name, metric.help, registry=registry)
                case "histogram":
                    self._histograms[metric.figure] = Histogram(
                        name, metric.help, buckets=SECONDS, registry=registry
                    )
                case "text":
                    self._texts[metric.figure] = Gauge(
                        name, metric.help, [metric.figure], registry=registry
                    )

    def watch(self, health: Health) -> None:
        """Tell from now on whether the process is ready."""
        self._ready.set_function(lambda: float(not health.lacking))

    def take(self, figures: Mapping[str, float | int | str]) -> None:
        """Take the figures of a log line."""
        for name, value in figures.items():
            if name in self._texts:
                self._texts[name].clear()
                self._texts[name].labels(str(value)).set(1)
            elif isinstance(value, str):
                continue
            elif name in self._gauges:
                self._gauges[name].set(value)
            elif name in self._counters:
                self._counters[name].inc(max(0.0, value - self._sums.get(name, 0.0)))
                self._sums[name] = value

    def observe(self, figure: str, values: Iterable[float]) -> None:
        """Tell a histogram further values, in seconds."""
        if histogram := self._histograms.get(figure):
            for value in values:
                histogram.observe(value)

    def count(self, figure: str, outcome: str) -> None:
        """Count one more of an outcome."""
        if figure in self._counters:
            self._counters[figure].labels(outcome).inc()


def _version() -> str:
    try:
        return version("streamgcn")
    except PackageNotFoundError:  # it runs from a folder
        return "unknown"
