"""The log: one line of figures every few seconds, one sentence for each change of state."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Sequence
from typing import Any

import msgspec

from process.metrics import Metric, Metrics
from process.text import visible, visible_lines

FIGURES_EVERY = 5.0  # seconds between two lines of figures


class _Utc(logging.Formatter):
    @staticmethod
    def converter(seconds: float | None) -> time.struct_time:
        return time.gmtime(seconds)


class _Text(_Utc):
    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s", "%Y-%m-%dT%H:%M:%SZ")

    def formatMessage(self, record: logging.LogRecord) -> str:
        return visible(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:
        return visible_lines(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:
        return visible_lines(super().formatStack(stack_info))


class _Json(_Utc):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%SZ"),
            "level": record.levelname,
            "process": visible(record.name),
            "message": visible(record.getMessage()),
        }
        for name, value in getattr(record, "figures", {}).items():
            line[name] = visible(value) if isinstance(value, str) else value
        if record.exc_info:
            line["exception"] = visible_lines(self.formatException(record.exc_info))
        return msgspec.json.encode(line).decode()


def configure(log_format: str) -> None:
    """Send the log to stderr as `text` or `json` lines; libraries are heard from ERROR up."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if log_format == "json" else _Text())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    # Whoever calls them reports an unreachable broker or Redis once; the clients would say so
    # several times a second.
    for client in ("kafka", "redis"):
        logging.getLogger(client).setLevel(logging.CRITICAL)


class Figures:
    """Logs a process's figures, and makes the process's metrics of the same ones."""

    def __init__(self, process: str, declared: Sequence[Metric] = ()) -> None:
        self.log = logging.getLogger(process)
        self.metrics = Metrics(process, declared)
        self._last = time.monotonic()

    def due(self) -> bool:
        """Whether the next line of figures is due."""
        return time.monotonic() - self._last >= FIGURES_EVERY

    def report(self, headline: str, **figures: float | int | str) -> None:
        """Log `headline name=value ...`, and take the same figures into the metrics."""
        self._last = time.monotonic()
        words = " ".join(f"{name}={value}" for name, value in figures.items())
        self.log.info("%s %s", headline, words, extra={"figures": figures})
        self.metrics.take(figures)
