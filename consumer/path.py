"""Where an edge store may lie, and how an object store is asked."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from process.settings import SettingsError

# In the Delta library these characters end in a panic, and an escape such as %20 is taken for the
# character that it stands for: part of the table would then lie in another folder.
REFUSED = re.compile(r"[\[\]^|\\\x00-\x1f\x7f]|%[0-9A-Fa-f]{2}")
OBJECT_STORES = ("s3", "gs", "az")
# A bucket and a path. Of other characters the Delta library makes one key where it reads a file,
# and another one where it lists files.
PLACE = re.compile(r"[A-Za-z0-9._-]+(/[A-Za-z0-9._=-]+)*/?")
SECRETS = re.compile(r"//[^/]*@")  # a user and a password before the host
ENDPOINT = "AWS_ENDPOINT_URL"  # a wrong one ends in a panic of the Delta library
# How long the library asks by itself; then the process says that the store is away, and waits.
RETRIES, RETRY_SECONDS = 2, 8
CONNECT, ANSWER = "3s", "10s"
ASKED = {
    "max_retries": str(RETRIES), "retry_timeout": f"{RETRY_SECONDS}s",
    "connect_timeout": CONNECT, "timeout": ANSWER,
}  # fmt: skip
# A commit is an object that nobody else has put before: what the one writer of a version rests on.
ONE_WRITER = {"aws_conditional_put": "etag"}


def check(uri: str, given: str = "") -> None:
    """Refuse a place in which the Delta library cannot keep a table.

    Args:
        given: what the user has given, EDGE_STORE if empty.

    Raises:
        SettingsError: naming what is wrong.
    """
    named = given or f"EDGE_STORE={SECRETS.sub('//<hidden>@', uri)!r}"
    scheme, colon, rest = uri.partition(":")
    if colon and (rest.startswith("//") or scheme in OBJECT_STORES) and scheme != "file":
        if scheme not in OBJECT_STORES or not rest.startswith("//"):
            raise SettingsError(
                f"{named} is refused: write a path, or s3://, gs:// or az:// with a bucket and a "
                "path, such as s3://bucket/edges"
            )
        if not PLACE.fullmatch(rest[2:]):
            raise SettingsError(
                f"{named} is refused: behind {scheme}:// must stand a bucket and a path of "
                "letters, digits and . _ - = (keys and passwords are settings of their own)"
            )
        endpoint = os.environ.get(ENDPOINT, "http://")
        if scheme == "s3" and not endpoint.startswith(("http://", "https://")):
            raise SettingsError(
                f"{ENDPOINT}={endpoint!r} is refused: it must begin with http:// or https://"
            )
        return
    path = uri if uri.startswith("file:") else os.path.abspath(uri)
    found = REFUSED.search(path)
    if found:
        raise SettingsError(
            f"{named} is refused: the path {path!r} holds {found[0]!r}, "
            "and the Delta library keeps no table below such a folder; take one without "
            "[ ] ^ | \\, control characters and escapes such as %20"
        )


def is_remote(uri: str) -> bool:
    """Whether a checked URI is a place in an object store."""
    return uri.partition("://")[0] in OBJECT_STORES


def folder(uri: str) -> Path | None:
    """The folder of a place, as the Delta library finds it; None where it is in an object store.

    Args:
        uri: as it was given, or as a table tells it.
    """
    if is_remote(uri):
        return None
    if uri.startswith("file:"):  # the library has no relative path in a URI
        return Path("/" + unquote(urlsplit(uri).path).lstrip("/"))
    return Path(uri).expanduser()


def options(uri: str) -> dict[str, str] | None:
    """What the Delta library is told of the place; credentials it reads from the environment."""
    if not is_remote(uri):
        return None
    return ASKED | (ONE_WRITER if uri.startswith("s3:") else {})
