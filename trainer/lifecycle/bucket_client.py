"""The client of an object store for the models: how long it asks, and what it raises."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError
from obstore.store import from_url

from consumer.edge.answers import BUCKET, plain
from consumer.edge.bucket import TRUE
from trainer.lifecycle.storage import StoreTrouble

if TYPE_CHECKING:
    from obstore.store import ClientConfig, ObjectStore, RetryConfig

# Small objects are looked at every second, by loops that have other work.
SMALL: ClientConfig = {"connect_timeout": "3s", "timeout": "5s"}
LARGE: ClientConfig = {"connect_timeout": "3s", "read_timeout": "30s", "timeout": "30m"}
SOON: RetryConfig = {"max_retries": 1, "retry_timeout": timedelta(seconds=5)}
LATER: RetryConfig = {"max_retries": 2, "retry_timeout": timedelta(minutes=1)}


class Changed(StoreTrouble):
    """An object is not what a condition says."""


@contextmanager
def errors() -> Iterator[None]:
    """Turn what the library raises into OSError."""
    try:
        yield
    except (AlreadyExistsError, PreconditionError) as error:
        raise Changed(plain(error)) from error
    except FileNotFoundError as error:
        if BUCKET.search(str(error)):  # it is missing, not the object
            raise StoreTrouble(plain(error)) from error
        raise FileNotFoundError(plain(error)) from error
    except BaseError as error:
        raise StoreTrouble(plain(error)) from error


def client(uri: str, options: ClientConfig, retry: RetryConfig) -> ObjectStore:
    """A client with these options, which replace those of the environment: so that one is kept
    without which no server on one's own machine can be reached."""
    allow_http = os.environ.get("AWS_ALLOW_HTTP", "").lower() in TRUE
    store: ObjectStore = from_url(
        uri, client_options={**options, "allow_http": allow_http}, retry_config=retry
    )
    return store
