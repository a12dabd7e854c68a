"""The commands that run until a signal: `up`, `consumer`, `trainer`, `serving`; and `demo`."""

from __future__ import annotations

import logging
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from consumer.ingest import metrics as consumer_metrics
from process.log import configure
from process.metrics import Metric
from process.priority import yield_to_others
from process.running import Running, running
from process.shutdown import Stopped, stop_on_signals
from serving.loop import metrics as serving_metrics
from serving.settings import ServingSettings
from streamgcn import demo as demonstration
from streamgcn.cli.page import PORT as PAGE_PORT
from streamgcn.services.ports import free_port
from streamgcn.terminal import out, say
from streamgcn.up.up import Up
from trainer.lifecycle import metrics as trainer_metrics
from trainer.ranks import number

FOLDER = Path("data")  # of `up`


def up() -> None:
    """Run everything on this machine until Ctrl-C.

    Starts an embedded broker if KAFKA_BOOTSTRAP_SERVERS is unset, an embedded Redis if REDIS_URL is
    unset, then the consumer, the trainer, serving and the page, and prints the addresses. A process
    that ends is started again. What the broker and Redis write is in ./data. Started again in the
    same folder, it goes on with the edges and models in ./data.
    """
    settings = ServingSettings.load()
    configure(settings.log_format)
    stop = stop_on_signals()
    port = free_port(PAGE_PORT)
    with suppress(Stopped), Up(os.environ, FOLDER, stop, port) as running:
        out.print("StreamGCN is up. Commands in this folder find it; elsewhere they need")
        for name, value in running.addresses().items():
            say(out, f"  export {name}={shlex.quote(value)}")
        say(out, f"The page is at http://127.0.0.1:{port}.")
        sys.stdout.flush()
        while not stop.wait(0.5):
            running.watch()
    logging.getLogger("up").info("Stopped everything that was started.")


def consumer() -> None:
    """Add events from Kafka to the edge store, each exactly once."""
    with _running("consumer", consumer_metrics.METRICS) as (settings, process):
        from consumer.ingest import loop as ingest

        ingest.run(settings, process)


def trainer() -> None:
    """Retrain the model on the grown graph whenever it is due.

    Several processes train one model if torchrun starts them:
    `torchrun --nproc-per-node 4 -m streamgcn.cli trainer`. The first one has the port of
    STREAMGCN_METRICS_PORT.
    """
    with _running("trainer", trainer_metrics.METRICS, number() == 0) as (settings, process):
        from trainer import retrain

        yield_to_others()  # a training lasts minutes; an event must be in its list within a second
        retrain.run(settings, process)


def serving() -> None:
    """Keep every user's list in Redis, from each new model and after each event."""
    with _running("serving", serving_metrics.METRICS) as (settings, process):
        from serving import serve

        serve.run(settings, process)


def demo() -> None:
    """Show StreamGCN at work: simulated shoppers, a training, a user's list after each event."""
    ServingSettings.load()
    configure("text")
    demonstration.run(out, stop_on_signals())


@contextmanager
def _running(
    name: str, declared: Sequence[Metric], watched: bool = True
) -> Iterator[tuple[ServingSettings, Running]]:
    """Settings and frame of the process `name`; what takes long to import comes inside.

    Args:
        watched: whether the process opens its port.
    """
    settings = ServingSettings.load()
    port = settings.metrics_port if watched else 0
    with running(name, declared, settings.log_format, settings.metrics_host, port) as process:
        yield settings, process
