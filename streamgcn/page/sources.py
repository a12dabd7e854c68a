"""What each part of StreamGCN says of itself now, for the page.

Each source is asked on a thread of its own, so one that does not answer holds up no other. A value
that is missing comes with a sentence that says why.
"""

from __future__ import annotations

import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from consumer.edge.store import EdgeStore
from consumer.kafka.topics import group_lag
from process.errors import StreamGCNError
from process.text import visible
from serving.redis.store import Store
from serving.settings import ServingSettings
from trainer.lifecycle.manifest import SnapshotError
from trainer.lifecycle.promotion import named_in
from trainer.lifecycle.running_training import doing, training
from trainer.lifecycle.snapshots import Snapshots

SECONDS = 2.0  # between two questions
LAG_SECONDS = 10.0  # between two questions to Kafka, which cost it more
ANSWER_SECONDS = 2.0  # of a process's metrics
ROOMS = ("consumer", "trainer", "serving")  # in the order of their metrics' ports
ANY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104  they are compared, nothing listens there
Values = dict[str, Any]
Series = dict[str, float]  # name and labels of a series, as Prometheus writes them -> value


@dataclass(frozen=True)
class Source:
    """One part; `ask` may raise StreamGCNError or OSError.

    What `ask` returns may have a sentence under "lacking", beside values that are good.
    """

    name: str
    ask: Callable[[], Values]
    every: float = SECONDS


class Latest:
    """The last answer of each source, and the sentence of each that has none."""

    def __init__(self, sources: list[Source], stop: threading.Event) -> None:
        """Ask until `stop` is set."""
        self._stop = stop
        self._values: dict[str, Values] = {}
        self.troubles: dict[str, str] = {source.name: "not asked yet" for source in sources}
        for source in sources:
            threading.Thread(target=self._follow, args=(source,), daemon=True).start()

    def value(self, name: str, key: str) -> Any:
        """A value of a source, None where it has none now."""
        return self._values.get(name, {}).get(key)

    def _follow(self, source: Source) -> None:
        while not self._stop.is_set():
            try:
                values = source.ask()
                lacking = values.get("lacking")
                self._values[source.name] = values
                if lacking:
                    self.troubles[source.name] = visible(lacking, 500)
                else:
                    self.troubles.pop(source.name, None)
            except Exception as error:  # whatever it is, the page shows it and asks again
                expected = isinstance(error, StreamGCNError | OSError)
                text = str(error) if expected else f"{type(error).__name__}: {error}"
                self.troubles[source.name] = visible(text, 500)
                self._values.pop(source.name, None)
            self._stop.wait(source.every)


def sources(settings: ServingSettings) -> list[Source]:
    """All of them, by the settings."""
    found = [
        Source("edge store", lambda: _edges(settings)),
        Source("models", lambda: _models(settings.model_store)),
        Source("Redis", lambda: _redis(settings)),
    ]
    if settings.metrics_port:
        for number, room in enumerate(ROOMS):
            url = _url(settings, number)
            found.append(Source(room, partial(_room, url)))
    else:
        found.append(Source("Kafka", lambda: _lag(settings), LAG_SECONDS))
    return found


def _room(url: str) -> Values:
    return {"series": scrape(f"{url}/metrics"), "lacking": _lacking(f"{url}/readyz")}


def _lacking(url: str) -> str:
    """What a process lacks to do its job; empty if it lacks nothing."""
    try:
        urllib.request.urlopen(url, timeout=ANSWER_SECONDS).close()  # noqa: S310  _url made it
    except urllib.error.HTTPError as refused:
        with refused:
            return "; ".join(refused.read(10_000).decode(errors="replace").splitlines())
    return ""


def scrape(url: str) -> Series:
    """The series of a process's metrics.

    Raises:
        OSError: the process does not answer.
    """
    try:
        with urllib.request.urlopen(url, timeout=ANSWER_SECONDS) as answer:  # noqa: S310  _url made it
            text = answer.read().decode()
    except urllib.error.URLError as error:
        raise OSError(f"the process does not answer at {url}: {error.reason}") from error
    return {
        sample.name + "".join(f" {key}={value}" for key, value in sorted(sample.labels.items())):
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }  # fmt: skip


def _url(settings: ServingSettings, number: int) -> str:
    host = "127.0.0.1" if settings.metrics_host in ANY_ADDRESS else settings.metrics_host
    host = f"[{host}]" if ":" in host else host
    return f"http://{host}:{settings.metrics_port + number}"


def _edges(settings: ServingSettings) -> Values:
    return {"rows": EdgeStore(settings.edge_store, settings.kafka_topic).count()}


def _redis(settings: ServingSettings) -> Values:
    store = Store(settings.redis_url, settings.redis_prefix)
    try:
        model = store.model()
        return {"model": model.get("version", ""), "lacking": "; ".join(store.losses())}
    finally:
        store.close()


def _lag(settings: ServingSettings) -> Values:
    group = settings.kafka_group
    return {
        "consumer": group_lag(settings, group)[0],
        "serving": group_lag(settings, f"{group}-serving")[0],
    }


def _models(uri: str) -> Values:
    snapshots = Snapshots(uri)
    snapshots.check()
    marks = snapshots.marks.now()
    live = named_in(marks)
    made: list[Values] = []
    for version in reversed(snapshots.versions()):
        try:
            manifest = snapshots.manifest(version)
        except SnapshotError as error:
            made.append({"version": version, "verdict": visible(f"damaged: {error}", 300)})
            continue
        made.append(
            {
                "version": version,
                "live": version == live,
                "users": manifest.users,
                "items": manifest.items,
                "edges": manifest.edges,
                "seconds": sum(manifest.seconds.values()),
                "metrics": manifest.metrics,
                "verdict": visible(manifest.rejected and f"rejected: {manifest.rejected}", 300)
                or ("withdrawn" if marks.is_withdrawn(version) else "passed"),
            }
        )
    running = training(snapshots.storage)
    return {
        "versions": made,
        "lacking": "" if made else "no model was trained yet",
        "trainer": visible(doing(snapshots.storage)),
        "training": msgspec.to_builtins(running) if running else None,
        "asked_at": time.time(),
    }
