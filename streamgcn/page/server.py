"""Serves the page until told to stop."""

from __future__ import annotations

import logging
import socket
import threading

import uvicorn

from process.errors import StreamGCNError
from process.settings import SettingsError
from serving.settings import ServingSettings
from streamgcn.page.app import make_app

log = logging.getLogger("page")


class PageEnded(StreamGCNError):
    """The web server of the page has ended although nobody told it to."""


def serve(settings: ServingSettings, host: str, port: int, stop: threading.Event) -> None:
    """Serve the page at `host`:`port` until `stop` is set.

    Raises:
        SettingsError: the address cannot be listened on.
        PageEnded: the web server has ended by itself.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.create_server((host, port), family=family)
    except (OSError, OverflowError, UnicodeError) as error:
        raise SettingsError(
            f"the page cannot listen on {host}:{port} ({error}); give another --port or --host"
        ) from None
    logging.getLogger("uvicorn").setLevel(logging.ERROR)  # what else it says is said here
    config = uvicorn.Config(
        make_app(settings, host, listening.getsockname()[0], stop), log_config=None,
        access_log=False, lifespan="off", server_header=False, timeout_graceful_shutdown=1,
    )  # fmt: skip
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    shown = f"[{host}]" if ":" in host else host
    log.info("The page is at http://%s:%d.", shown, listening.getsockname()[1])
    while thread.is_alive() and not stop.wait(0.2):
        pass
    server.should_exit = True
    thread.join(5)
    listening.close()
    if not stop.is_set():
        raise PageEnded("the page has ended by itself; start it again")
