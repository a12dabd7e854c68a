"""How long an object store is asked for models, and what its client raises."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError

from consumer.edge.answers import BUCKET, plain
from trainer.lifecycle.storage import StoreTrouble

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig

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
