"""A running process: it can be told to stop, and it can be watched."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from process.health import Health
from process.http import endpoint
from process.log import Figures, configure
from process.metrics import Metric
from process.shutdown import Stopped, ending_in_time, stop_on_signals
from process.stderr import own_stderr


@dataclass(frozen=True)
class Running:
    """What the loop of a process is given."""

    stop: threading.Event  # set when the process should end
    figures: Figures
    health: Health


@contextmanager
def running(
    name: str, declared: Sequence[Metric], log_format: str, host: str, port: int
) -> Iterator[Running]:
    """The frame of the process `name`, in which its loop runs.

    The endpoint answers before the loop begins, so that whoever watches the process sees what it
    waits for. After a signal, or after the loop, the process ends within some seconds.

    Args:
        declared: the metrics of the process.
        log_format: text or json.
        host: address that the endpoint listens on.
        port: of the endpoint; 0 for none.

    Raises:
        SettingsError: the endpoint cannot be opened.
    """
    with own_stderr():
        configure(log_format)
        figures, health = Figures(name, declared), Health()
        figures.metrics.watch(health)
        stop = stop_on_signals()
        with (
            endpoint(host, port, figures.metrics.registry, health),
            ending_in_time(stop, figures.log, lambda: health.doing),
        ):
            if port:
                figures.log.info("Metrics are at %s:%d.", host, port)
            try:
                yield Running(stop, figures, health)
            except Stopped as stopped:
                figures.log.info("Told to stop while %s.", stopped)
