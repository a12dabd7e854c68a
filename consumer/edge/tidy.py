"""Small files of an edge store into large ones; old rows and old files away."""

from __future__ import annotations

from datetime import UTC, datetime

from consumer.edge import retention
from consumer.edge.schema import KEEP_REPLACED_HOURS
from consumer.edge.table import Table
from consumer.event.rules import FORGET, REMOVE

FILE_BYTES = 32 * 1024 * 1024  # a file that has grown to this is not merged again


def tidy(table: Table, retention_days: float | None) -> int:
    """As `EdgeStore.tidy`, on a table that was just read."""
    gone, delta = 0, table.delta
    with table.errors():
        if retention_days is not None:
            oldest = datetime.fromtimestamp(retention.oldest(retention_days) / 1000, UTC)
            done = delta.delete(
                f"timestamp < '{oldest.isoformat()}' AND type NOT IN ('{REMOVE}', '{FORGET}')"
            )
            gone = int(done.get("num_deleted_rows") or 0)
        delta.optimize.compact(target_size=FILE_BYTES)
        delta.create_checkpoint()
        delta.cleanup_metadata()
    vacuum(table, KEEP_REPLACED_HOURS, full=True)
    return gone


def vacuum(table: Table, hours: int, full: bool) -> None:
    """Delete files replaced `hours` ago; if `full`, also those that no version ever had.

    Only an hour's age tells the latter from a file that is being written.

    Raises:
        StoreError: the store cannot be written.
    """
    with table.errors():
        table.delta.vacuum(hours, dry_run=False, enforce_retention_duration=False, full=full)
