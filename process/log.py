"""The log: one line of figures every few seconds, one sentence for each change of state.

The figures of a line are also Prometheus gauges under the same names, where a port is set.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import msgspec
from prometheus_client import CollectorRegistry, Gauge, make_wsgi_app

from process.text import visible, visible_lines

FIGURES_EVERY = 5.0  # seconds between two lines of figures
HEALTHY_FOR = 60.0  # seconds without a line after which /healthz says 503


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
    """Logs a process's figures, and offers the same ones on `/metrics` and `/healthz`."""

    def __init__(self, process: str, metrics_port: int = 0) -> None:
        """`metrics_port` 0 opens no port."""
        self.log = logging.getLogger(process)
        self._process = process
        self._gauges: dict[str, Gauge] = {}
        self._registry = CollectorRegistry()
        self._last = time.monotonic()
        if metrics_port:
            self._serve(metrics_port)

    def due(self) -> bool:
        """Whether the next line of figures is due."""
        return time.monotonic() - self._last >= FIGURES_EVERY

    def report(self, headline: str, **figures: float | int | str) -> None:
        """Log `headline name=value ...`; numbers become gauges `streamgcn_<process>_<name>`."""
        self._last = time.monotonic()
        words = " ".join(f"{name}={value}" for name, value in figures.items())
        self.log.info("%s %s", headline, words, extra={"figures": figures})
        for name, value in figures.items():
            number = str(value).removesuffix("/s")
            if not number.replace(".", "", 1).isdigit():
                continue
            if name not in self._gauges:
                metric = f"streamgcn_{self._process}_{name.replace('@', '_at_')}"
                self._gauges[name] = Gauge(
                    metric, f"{name} of the log line", registry=self._registry
                )
            self._gauges[name].set(float(number))

    def alive(self) -> None:
        """Tell `/healthz` that the process works, where it has nothing to log."""
        self._last = time.monotonic()

    def _serve(self, port: int) -> None:
        metrics = make_wsgi_app(self._registry)

        def app(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
            if environ.get("PATH_INFO") != "/healthz":
                page: Iterable[bytes] = metrics(environ, start)
                return page
            healthy = time.monotonic() - self._last < HEALTHY_FOR
            start("200 OK" if healthy else "503 Service Unavailable", [])
            return [b"ok\n" if healthy else b"stuck\n"]

        class Quiet(WSGIRequestHandler):
            def log_message(self, format: str, *args: object) -> None:
                pass

        server = make_server("", port, app, handler_class=Quiet)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.log.info("Metrics are at port %d.", port)
