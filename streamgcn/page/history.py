"""The figures of the last minutes, one sample every two seconds."""

from __future__ import annotations

import threading
import time
from collections import deque
from itertools import pairwise
from typing import Any

from streamgcn.page.sources import SECONDS, Latest, Series

MINUTES = 5
BUCKET = "streamgcn_serving_freshness_seconds_bucket le="
Sample = dict[str, Any]


class History:
    """Takes a sample of what the sources said last."""

    def __init__(self, latest: Latest, stop: threading.Event) -> None:
        """Take samples until `stop` is set."""
        self._latest, self._stop = latest, stop
        self._samples: deque[Sample] = deque(maxlen=int(MINUTES * 60 / SECONDS))
        self._rows: tuple[float, int] | None = None  # when, how many
        self._freshness: Series = {}
        self._stages: list[str] = []  # of the running training
        self._since = ""
        threading.Thread(target=self._follow, daemon=True).start()

    def samples(self) -> list[Sample]:
        """The oldest first."""
        return list(self._samples)

    def state(self) -> dict[str, Any]:
        """What is so now and has no history: troubles, training, versions."""
        running = self._latest.value("models", "training")
        return {
            "troubles": dict(sorted(self._latest.troubles.items())),
            "trainer": self._latest.value("models", "trainer") or "not known",
            "training": running,
            "stages": list(self._stages) if running else [],
            "versions": self._latest.value("models", "versions") or [],
            "published": self._latest.value("Redis", "model") or "",
        }

    def _follow(self) -> None:
        while not self._stop.wait(SECONDS):
            self._samples.append(self._sample())
            self._note_stage()

    def _sample(self) -> Sample:
        latest, now = self._latest, time.time()
        rows = latest.value("edge store", "rows")
        rate = None
        if rows is not None:
            if self._rows and now > self._rows[0]:
                rate = max(0.0, (rows - self._rows[1]) / (now - self._rows[0]))
            self._rows = now, rows
        serving = latest.value("serving", "series") or {}
        consumer = latest.value("consumer", "series") or {}
        middle, late = self._quantiles(serving)
        return {
            "at": now,
            "rows": rows,
            "rate": rate,
            "lag": _first(
                consumer.get("streamgcn_consumer_lag_messages"), latest.value("Kafka", "consumer")
            ),
            "serving_lag": _first(
                serving.get("streamgcn_serving_lag_messages"), latest.value("Kafka", "serving")
            ),
            "fresh": middle,
            "late": late,
            "loss": (latest.value("models", "training") or {}).get("loss"),
        }

    def _quantiles(self, series: Series) -> tuple[float | None, float | None]:
        """Median and 99th percentile of the freshness since the last lists, in seconds."""
        now = {name: value for name, value in series.items() if name.startswith(BUCKET)}
        before, new = self._freshness, {}
        if now:
            self._freshness = now
            new = {name: value - before.get(name, 0.0) for name, value in now.items()}
        buckets = sorted((float(name.removeprefix(BUCKET)), count) for name, count in new.items())
        return _quantile(buckets, 0.5), _quantile(buckets, 0.99)

    def _note_stage(self) -> None:
        running = self._latest.value("models", "training")
        if not running:
            return
        if running["since"] != self._since:
            self._since, self._stages = running["since"], []
        if running["stage"] not in self._stages:
            self._stages.append(running["stage"])


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def _quantile(buckets: list[tuple[float, float]], share: float) -> float | None:
    """As Prometheus's histogram_quantile: linear within a bucket; None without a value."""
    if not buckets or buckets[-1][1] <= 0:
        return None
    rank = share * buckets[-1][1]
    for (low, below), (high, count) in pairwise([(0.0, 0.0), *buckets]):
        if count >= rank:
            inside = (rank - below) / (count - below) if count > below else 1.0
            return low if high == float("inf") else low + (high - low) * inside
    return None
