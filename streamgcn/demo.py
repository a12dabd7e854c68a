"""The demo: simulated shoppers whose tastes change, a training, and a new user followed live."""

from __future__ import annotations

import os
import random
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.text import Text

from consumer.event.json import Event, encode
from consumer.kafka.publisher import Publisher
from consumer.settings import ConsumerSettings
from process.errors import StreamGCNError
from process.text import visible
from serving.redis.contract import Recommendations
from serving.redis.store import Store
from streamgcn.up.up import Up

Advance = Callable[[float], None]
T = TypeVar("T")

TASTES = ("garden", "music", "kitchen", "running", "painting", "chess", "cycling", "coffee")
ITEMS = 120  # of each taste
SHOPPERS = 125  # of each taste
EVENTS = 20  # of each shopper,
FORMER = 6  # the first of which follow another taste than the others
OWN_TASTE = 0.9  # share of a shopper's events that follow its taste
TOP_K = 20
MOSTLY = 0.6  # share of a list that must be of its user's taste
PATIENCE = 150.0  # seconds for a training and its lists
NEWCOMER = "newcomer"
TOUCHED = {"music": (3, 8, 15), "kitchen": (3, 8, 15, 24, 30)}  # items of the newcomer, by taste


class DemoFailed(StreamGCNError):
    """A list is missing or wrong."""


def run(console: Console, stop: threading.Event) -> None:
    """Run it in a temporary folder, on an embedded broker and Redis of its own.

    Raises:
        DemoFailed: a list is missing, holds what its user has, or does not follow its taste.
    """
    env = {name: v for name, v in os.environ.items() if name not in _OWN}
    with tempfile.TemporaryDirectory() as folder:
        env |= {
            "EDGE_STORE": f"{folder}/edges",
            "MODEL_STORE": f"{folder}/models",
            "STREAMGCN_TOP_K": str(TOP_K),
            "STREAMGCN_MIN_EDGES": "12000",
            "STREAMGCN_RETRAIN_SECONDS": "100000",
            "STREAMGCN_RETRAIN_EDGES": "1000000",
        }
        with Up(env, Path(folder), stop) as running:
            settings = ConsumerSettings(
                kafka_bootstrap_servers=running.env["KAFKA_BOOTSTRAP_SERVERS"]
            )
            store = Store(running.env["REDIS_URL"], "streamgcn")
            _Demo(console, settings, store, running, stop).run()


_OWN = (
    "KAFKA_BOOTSTRAP_SERVERS", "REDIS_URL", "REDIS_URL_FILE", "KAFKA_TOPIC", "KAFKA_GROUP",
    "REDIS_PREFIX",
)  # fmt: skip


class _Demo:
    def __init__(
        self,
        console: Console,
        settings: ConsumerSettings,
        store: Store,
        running: Up,
        stop: threading.Event,
    ) -> None:
        self._console = console
        self._topic = settings.kafka_topic
        self._store = store
        self._running = running
        self._stop = stop
        self._publisher = Publisher(settings)
        self._random = random.Random(7)
        self._has: dict[str, set[str]] = {}

    def run(self) -> None:
        self._shop()
        self._say("Waiting for the first training and the lists of all shoppers.")
        self._wait("the live model", lambda: self._store.model() or None)
        share = self._check_shoppers()
        self._say(
            f"{len(self._has)} shoppers have a list; {share:.0%} of it is of their own taste."
        )
        self._follow_newcomer()
        self._publisher.close()
        self._say("The demo is done: every list is there and as it should be.", style="green")

    def _shop(self) -> None:
        self._say(
            f"{SHOPPERS * len(TASTES)} shoppers of {len(TASTES)} tastes publish events; each has "
            "changed taste once."
        )
        shoppers = [(taste, f"{taste}-fan-{n}") for taste in TASTES for n in range(SHOPPERS)]
        former = {user: self._random.choice(_others(taste)) for taste, user in shoppers}
        for number in range(EVENTS):
            self._random.shuffle(shoppers)
            for taste, user in shoppers:
                now = former[user] if number < FORMER else taste
                followed = self._random.random() < OWN_TASTE
                self._touch(user, now if followed else self._random.choice(TASTES))
        self._publisher.flush()
        self._say(f"{len(shoppers) * EVENTS} events are in Kafka.")

    def _touch(self, user: str, taste: str) -> None:
        # Squared, so that some items are far more popular than others.
        item = f"{taste}-{int(ITEMS * self._random.random() ** 2)}"
        self._publish(user, item)

    def _publish(self, user: str, item: str) -> int:
        """Send one event; returns its timestamp."""
        event = Event(user, item, 1.0, int(time.time() * 1000), "view")
        self._publisher.send(self._topic, encode(event), user.encode())
        self._has.setdefault(user, set()).add(item)
        return event.timestamp

    def _check_shoppers(self) -> float:
        """Mean share of the lists that follow their user's newer taste."""
        shares = []
        for user, has in self._has.items():
            found = self._wait(f"the list of {user}", partial(self._store.user, user))
            shares.append(check(user, found, has, user.split("-")[0]))
        followed = sum(share >= MOSTLY for share in shares) / len(shares)
        if followed < 0.9:
            raise DemoFailed(f"only {followed:.0%} of the lists mostly follow their user's taste")
        return sum(shares) / len(shares)

    def _follow_newcomer(self) -> None:
        """Events of a user that the model has never seen, of one taste, then of another one.

        The list is read after each; after the last event of a taste it must follow this taste.
        """
        for taste, numbers in TOUCHED.items():
            share = 0.0
            for number in numbers:
                share = self._after_event(f"{taste}-{number}", taste)
            if share < MOSTLY:
                raise DemoFailed(
                    f"only {share:.0%} of the newcomer's list follows the newest {len(numbers)} "
                    f"events, which are of the taste {taste}"
                )

    def _after_event(self, item: str, taste: str) -> float:
        """Publish an event of the newcomer; returns the share of the list that is of a taste."""
        started = time.time()
        event_at = self._publish(NEWCOMER, item)
        self._publisher.flush()
        has = self._has[NEWCOMER]
        found = self._wait(f"the list after {item}", partial(self._reflecting, event_at))
        elapsed = (time.time() - started) * 1000
        share = check(NEWCOMER, found, has, taste)
        self._say(
            f"{NEWCOMER} touches {item}: list after {elapsed:.0f} ms, {share:.0%} {taste}: "
            f"{', '.join(found.items[:6])}, ... because {found.because[0]}"
        )
        return share

    def _reflecting(self, event_at: int) -> Recommendations | None:
        found = self._store.user(NEWCOMER)
        return found if found and found.event_at >= event_at else None

    def _wait(self, what: str, look: Callable[[], T | None]) -> T:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            found = look()
            if found is not None:
                return found
            self._running.watch()
            if self._stop.wait(0.002):
                raise DemoFailed("stopped before its end")
        raise DemoFailed(f"{what} did not appear within {PATIENCE:.0f} s")

    def _say(self, text: str, style: str = "") -> None:
        line = Text.assemble(("demo", "bold cyan"), " ", (visible(text), style))
        self._console.print(line, soft_wrap=True)


def _others(taste: str) -> list[str]:
    return [other for other in TASTES if other != taste]


def check(user: str, found: Recommendations, has: set[str], taste: str) -> float:
    """Share of a list's items that are of `taste`.

    Raises:
        DemoFailed: the list is empty or holds an item that the user has.
    """
    if not found.items:
        raise DemoFailed(f"the list of {user} is empty")
    if both := has.intersection(found.items):
        raise DemoFailed(f"the list of {user} holds {sorted(both)}, which the user has")
    return sum(item.startswith(f"{taste}-") for item in found.items) / len(found.items)
