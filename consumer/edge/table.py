"""A handle of one Delta Lake table, and the library's errors in this project's words.

Each look opens the table anew: the place may be gone for a while, or hold another table by then.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Literal

import pyarrow as pa
from deltalake import (
    CommitProperties,
    DeltaTable,
    PostCommitHookProperties,
    Transaction,
    write_deltalake,
)
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.fs import DeltaStorageHandler
from deltalake.transaction import AddAction
from obstore.exceptions import BaseError
from pyarrow.fs import PyFileSystem

from consumer import path
from consumer.edge import answers
from process.errors import StreamGCNError
from process.settings import SettingsError

# Two cleanings of the log at once trip over each other, so `tidy` alone does it.
NO_CLEANUP = PostCommitHookProperties(create_checkpoint=True, cleanup_expired_logs=False)
SHOWN = 200  # characters of a refusal of an object store, before what to do
Transactions = Mapping[str, int]  # application id -> version


class StoreError(StreamGCNError):
    """The edge store cannot be read or written now; the cause is in the text."""


class StoreMissing(StoreError):
    """There is no edge store at the place, which only a consumer may begin."""


class StoreRefused(StoreError, SettingsError):
    """The object store does not let this process in; the text says which setting to change."""


class Conflict(StoreError):
    """Another process changed the same files in the meantime."""


class Overtaken(Conflict):
    """Another process has committed one of the same transactions in the meantime."""


class Replaced(StoreError):
    """The place holds another table, or an older state of it: read it from its start."""


class Fenced(StreamGCNError):
    """Another consumer has moved a partition on: drop what is buffered, read the offsets again."""


class Table:
    """The Delta table at one place. Not safe for several threads; open one for each."""

    def __init__(self, uri: str) -> None:
        """Open the table at a path or an object store's URI.

        Raises:
            StoreMissing: there is none.
            StoreError: it cannot be read.
        """
        self.uri = uri
        self.refresh()

    @property
    def id(self) -> str:
        """Delta's id of the table."""
        return str(self.delta.metadata().id)

    @property
    def version(self) -> int:
        """Delta version that was read last."""
        version: int = self.delta.version()
        return version

    def refresh(self) -> None:
        """Open the newest version of whatever table is there now.

        Raises:
            StoreMissing, StoreError: as at first.
        """
        with self.errors():
            self.delta = self._open()

    def transaction(self, app: str) -> int | None:
        """Version of an application's last transaction, None before the first."""
        version: int | None = self.delta.transaction_version(app)
        return version

    @property
    def table_uri(self) -> str:
        """The place as the library has understood it: whole, without `~` and `..`."""
        return str(self.delta.table_uri)

    def append(self, files: list[AddAction], transactions: Transactions) -> None:
        """Add files of the place, and move on the application's transactions, in one commit.

        Raises:
            Overtaken: another process has committed one of the transactions since `refresh`.
            StoreError: it is not known whether the commit came.
        """
        with self.errors():
            self.delta.create_write_transaction(
                files,
                "append",
                self.delta.schema(),
                commit_properties=_properties(transactions),
                post_commithook_properties=NO_CLEANUP,
            )

    def holds(self, name: str) -> bool:
        """Whether a file is one of the version that was read.

        Raises:
            StoreError: the list cannot be read.
        """
        with self.errors():
            return name in pa.table(self.delta.get_add_actions())["path"].to_pylist()

    def overwrite(self, rows: pa.Table, predicate: str, transactions: Transactions) -> None:
        """Put rows in the place of those that the SQL predicate is true for, as `append`.

        Raises:
            Conflict: another process has committed since `refresh`; nothing was written.
            StoreError: nothing was written.
        """
        with self.errors():
            try:
                write_deltalake(
                    self.delta,
                    rows,
                    mode="overwrite",
                    predicate=predicate,
                    schema_mode=self._schema_mode(rows),
                    commit_properties=_properties(transactions),
                    post_commithook_properties=NO_CLEANUP,
                )
            except DeltaError as error:
                # The library's look for a conflict can fail itself: it does not understand every
                # predicate that its writer does (deltalake 1.6: "Invalid function 'utf8'").
                if self._open().version() == self.version:
                    raise
                raise Conflict(
                    f"edge store {self.uri}: another process has committed in the meantime"
                ) from error

    def place(self) -> PyFileSystem:
        """The files of the place, by names below it.

        Raises:
            StoreError: the place cannot be reached.
        """
        with self.errors():
            return place(self.uri)

    def _open(self) -> DeltaTable:
        return DeltaTable(self.uri, storage_options=path.options(self.uri))

    def _schema_mode(self, rows: pa.Table) -> Literal["merge"] | None:
        """How rows are written to a table to which another program has added columns."""
        others = {field.name for field in self.delta.schema().fields} - set(rows.schema.names)
        return "merge" if others else None

    def errors(self) -> AbstractContextManager[None]:
        """Turn the library's errors into this file's."""
        return errors(self.uri)


def place(uri: str) -> PyFileSystem:
    """The files of a place, by names below it."""
    return PyFileSystem(DeltaStorageHandler(uri, path.options(uri)))


@contextmanager
def errors(uri: str) -> Iterator[None]:
    """Turn the library's errors about the table at `uri` into this file's."""
    try:
        yield
    except TableNotFoundError as error:
        raise StoreMissing(f"there is no edge store at {uri}") from error
    except (DeltaError, OSError, pa.ArrowException, BaseError) as error:
        raise _told(error, uri) from error


def _told(error: BaseException, uri: str) -> StoreError:
    text = answers.plain(error)
    if path.is_remote(uri) and (mend := answers.setting_to_mend(error, uri)):
        return StoreRefused(f"EDGE_STORE={uri} is refused: {text[:SHOWN]}; {mend}")
    text = f"edge store {uri}: {text}"
    if not isinstance(error, CommitFailedError):
        return StoreError(text)
    return Overtaken(text) if "oncurrent transaction" in text else Conflict(text)


def _properties(transactions: Transactions) -> CommitProperties:
    return CommitProperties(
        app_transactions=[Transaction(app, version) for app, version in transactions.items()]
    )
