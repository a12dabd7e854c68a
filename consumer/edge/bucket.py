"""The client of an object store; objects of the edge store, put and deleted one at a time.

The Delta library's own files put each object in parts, which a killed process leaves behind unseen.
"""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import obstore
from obstore.store import from_url

from consumer import path

if TYPE_CHECKING:
    from obstore.store import ClientConfig, ObjectStore, RetryConfig

WHOLE = "60s"  # in which an object has gone up
TRUE = ("1", "true", "yes", "on", "y")  # obstore reads all variables but AWS_ALLOW_HTTP


def client(uri: str, options: ClientConfig, retry: RetryConfig) -> ObjectStore:
    """A client with these options, which replace those of the environment: so that one is kept
    without which no server on one's own machine can be reached."""
    allow_http = os.environ.get("AWS_ALLOW_HTTP", "").lower() in TRUE
    store: ObjectStore = from_url(
        uri, client_options={**options, "allow_http": allow_http}, retry_config=retry
    )
    return store


def put(uri: str, name: str, content: bytes | Path) -> None:
    """Put an object below a place, in one piece, in the place of the one that is there.

    Raises:
        obstore.exceptions.BaseError: the object store refuses, or does not answer.
        OSError: the file cannot be read.
    """
    obstore.put(_place(uri), name, content, use_multipart=False)


def delete(uri: str, name: str) -> None:
    """Delete an object below a place, if it is there.

    Raises:
        obstore.exceptions.BaseError: the object store refuses, or does not answer.
    """
    obstore.delete(_place(uri), name)


def _place(uri: str) -> ObjectStore:
    seconds = timedelta(seconds=path.RETRY_SECONDS)
    return client(
        uri,
        {"connect_timeout": path.CONNECT, "timeout": WHOLE},
        {"max_retries": path.RETRIES, "retry_timeout": seconds},
    )
