"""The page's addresses: the page itself, the stream of figures, and the two questions.

Nothing foreign is loaded and nothing is run that is not in static/: the headers say so to the
browser. Ids go to the browser as JSON and are put there as text.
"""

from __future__ import annotations

import asyncio
import ipaddress
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import msgspec
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.settings import ServingSettings
from streamgcn.page import lookup
from streamgcn.page.history import History
from streamgcn.page.sources import SECONDS, Latest, sources

STATIC = Path(__file__).parent / "static"
FILES = {
    "/": ("index.html", "text/html"),
    "/page.js": ("page.js", "text/javascript"),
    "/page.css": ("page.css", "text/css"),
}
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


def make_app(
    settings: ServingSettings, host: str, address: str, stop: threading.Event
) -> Starlette:
    """The application, whose sources are asked until `stop` is set.

    Args:
        host: that the page is served at, as the user gave it.
        address: that the host stands for. On loopback a request must name one of the two, or a
            usual name of loopback, so that no other page's name that was bound to this address can
            read what is here.
    """
    history = History(Latest(sources(settings), stop), stop)

    async def events(_: Request) -> StreamingResponse:
        return StreamingResponse(_stream(history, stop), media_type="text/event-stream")

    def user(request: Request) -> Response:
        return _json(lookup.user(settings, request.query_params.get("id", "")))

    def item(request: Request) -> Response:
        return _json(lookup.item(settings, request.query_params.get("id", "")))

    routes = [Route(path, _file(*named)) for path, named in FILES.items()]
    routes += [Route("/events", events), Route("/user", user), Route("/item", item)]
    middleware = [Middleware(_Headers)]
    if _is_loopback(address):
        names = [*LOOPBACK, *(f"[{name}]" if ":" in name else name for name in (host, address))]
        middleware.append(Middleware(TrustedHostMiddleware, allowed_hosts=names))
    return Starlette(routes=routes, middleware=middleware)


def _is_loopback(address: str) -> bool:
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped:
        ip = ip.ipv4_mapped
    return ip.is_loopback


class _Headers:
    """Puts HEADERS on every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        await self._app(scope, receive, answer)


def _file(name: str, kind: str) -> Callable[[Request], Awaitable[Response]]:
    content = (STATIC / name).read_bytes()

    async def answer(_: Request) -> Response:
        return Response(content, media_type=kind)

    return answer


async def _stream(history: History, stop: threading.Event) -> AsyncIterator[bytes]:
    """All samples at first, then each new one, with what is so now."""
    sent = 0.0
    while not stop.is_set():
        samples = [sample for sample in history.samples() if sample["at"] > sent]
        sent = samples[-1]["at"] if samples else sent
        yield b"data: " + msgspec.json.encode(history.state() | {"samples": samples}) + b"\n\n"
        until = time.monotonic() + SECONDS
        while time.monotonic() < until and not stop.is_set():
            await asyncio.sleep(0.1)  # so that an open page does not hold up the end


def _json(found: object) -> Response:
    return Response(msgspec.json.encode(found), media_type="application/json")
