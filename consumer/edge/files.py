"""Reads the data files of the version that a table has read."""

from __future__ import annotations

from collections.abc import Collection

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow.dataset import FileSystemDataset, ParquetFileFormat, Scanner

from consumer.edge import windows
from consumer.edge.schema import TABLE
from consumer.edge.table import Table
from consumer.edge.traces import IS_EVENT

USERS = pa.schema([TABLE.field("user_id"), TABLE.field("kafka_partition")])


class Files:
    """The data files of the version that a table has read."""

    def __init__(self, table: Table) -> None:
        """Raises StoreError where their list cannot be read."""
        self._table = table
        self._format = ParquetFileFormat()
        with table.errors():
            self.all = windows.files_of(pa.table(table.delta.get_add_actions(flatten=True)))
        self._place = table.place()

    def scan(
        self, paths: Collection[str], rows: pc.Expression | None, columns: list[str] | None = None
    ) -> Scanner:
        """A scan of some files. The library's own datasets leave out rows of files that were
        written before a column was added, so this one goes by the files' content alone.
        """
        made = [self._format.make_fragment(path, self._place) for path in paths]
        dataset = FileSystemDataset(made, TABLE, self._format, self._place)
        return dataset.scanner(
            columns=columns, filter=rows, batch_readahead=2, fragment_readahead=1
        )

    def read(
        self, paths: Collection[str], rows: pc.Expression | None, columns: list[str] | None = None
    ) -> pa.Table:
        """The rows of a scan.

        Raises:
            StoreError: a file cannot be read; an erasure may just have deleted it.
        """
        with self._table.errors():
            return self.scan(paths, rows, columns).to_table()

    def users(self, paths: Collection[str], rows: pc.Expression) -> pa.Table:
        """user_id and kafka_partition of the rows of a scan, no pair twice, without those of type
        `forget`; of a batch of rows only its pairs are kept.

        Raises:
            StoreError: as `read`.
        """
        with self._table.errors():
            batches = self.scan(paths, rows & IS_EVENT, USERS.names).to_batches()
            parts = [_distinct(pa.Table.from_batches([batch])) for batch in batches]
        return _distinct(pa.concat_tables(parts)) if parts else USERS.empty_table()


def _distinct(pairs: pa.Table) -> pa.Table:
    return pairs.group_by(USERS.names).aggregate([])
