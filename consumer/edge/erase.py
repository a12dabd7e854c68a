"""Users' rows out of the table and their bytes out of its files."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow.dataset import dataset
from pyarrow.fs import FileSelector

from consumer.edge import windows
from consumer.edge.files import Files
from consumer.edge.order import taken
from consumer.edge.schema import SCHEMA
from consumer.edge.table import Table
from consumer.edge.traces import digest, rows_of
from consumer.event.rules import FORGET, HERE

Offsets = Mapping[int, int]
# Notices in one commit: the Delta library ends the process where a predicate has some ten thousand
# digests, as one bulk message can ask for (deltalake 1.6, a stack of 8 MB).
TOGETHER = 1_000
# As `traces.rows_of`: a notice is no row of the user whose id is like the digest in it.
_OF_USERS = f"coalesce(type, '') <> '{FORGET}' AND encode(sha256(user_id), 'hex')"


def before(log: int, offsets: Offsets) -> pc.Expression:
    """Rows of other logs, and those of `log` before the offsets, partition -> offset."""
    first = pc.field("log").is_null()  # a null means 0
    same = (pc.field("log") == 0) | first if log == 0 else pc.field("log") == log
    other = pc.field("log") != log if log == 0 else (pc.field("log") != log) | first
    spans = [
        (pc.field("kafka_partition") == partition) & (pc.field("kafka_offset") < offset)
        for partition, offset in offsets.items()
    ]
    return other | (same & windows.either(spans)) if spans else other


def of_users(
    table: Table,
    users: Collection[str],
    log: int,
    offsets: Offsets,
    everywhere: Collection[str] = (),
) -> pa.Table:
    """user_id, log and kafka_partition of the users' rows that are `before`.

    Args:
        everywhere: users of whom all rows are meant.

    Raises:
        StoreError: the table cannot be read.
    """
    files = Files(table)
    wanted = (rows_of(users) & before(log, offsets)) | rows_of(everywhere)
    columns = ["user_id", "log", "kafka_partition"]
    found = files.read([file.path for file in files.all], wanted, columns)
    log_of = pc.fill_null(found["log"], 0)
    return found.set_column(1, "log", log_of)


def files_with(table: Table, user: str, log: int, offsets: Offsets) -> list[str]:
    """Files in which there are rows of the user that are `before`.

    Every Parquet file in the place, replaced ones and those of killed writers too. The log holds no
    ids: of them it has no statistics, and an erasure names a digest.

    Raises:
        StoreError: the table cannot be read.
    """
    found = []
    place = table.place()
    with table.errors():
        for file in place.get_file_info(FileSelector("")):
            if not file.path.endswith(".parquet"):
                continue
            try:
                rows = dataset(file.path, filesystem=place)
                if not {"user_id", "type"} <= set(rows.schema.names):
                    continue  # a foreign file
                wanted = rows_of([user])
                if "log" in rows.schema.names:
                    wanted &= before(log, offsets)
                elif not log:
                    wanted &= _in_first(offsets)
                if rows.count_rows(filter=wanted):
                    found.append(file.path)
            except FileNotFoundError:
                continue  # deleted this moment
    return found


def notices(forgets: pa.Table, held: pa.Table, log: int) -> pa.Table:
    """Rows of TABLE of type `forget`, with digests for ids, where a user has rows to erase.

    Args:
        forgets: rows of type `forget` of `log`, the user_id as it was sent.
        held: what `of_users` found.
    """
    columns = (held[name].to_pylist() for name in ("user_id", "log", "kafka_partition"))
    places = {(user, None if of != log else p) for user, of, p in zip(*columns, strict=True)}
    holders = {user for user, _ in places}
    columns = (forgets[name].to_pylist() for name in ("user_id", "kafka_partition", "item_id"))
    hit = [
        bool(places & {(user, partition), (user, None)}) if item == HERE else user in holders
        for user, partition, item in zip(*columns, strict=True)
    ]
    kept = forgets.filter(pa.array(hit, pa.bool_())).select(SCHEMA.names)
    digests = pa.array([digest(user) for user in kept["user_id"].to_pylist()], pa.string())
    kept = kept.set_column(0, SCHEMA.field("user_id"), digests)
    return taken(kept, time.time_ns() // 1000)


def replaced_by(made: pa.Table, log: int) -> str:
    """SQL of the rows that make way for the notices; ids appear in it as digests alone."""
    by_partition: dict[int, tuple[list[str], list[str]]] = {}
    everywhere = []
    for row in made.to_pylist():
        digests, offsets = by_partition.setdefault(row["kafka_partition"], ([], []))
        digests.append(f"'{row['user_id']}'")
        offsets.append(str(row["kafka_offset"]))
        if row["item_id"] != HERE:
            everywhere.append(digests[-1])
    wide = f"{_OF_USERS} IN ({', '.join(everywhere)}) OR " if everywhere else ""
    return wide + " OR ".join(
        f"((coalesce(log, 0) <> {log} OR kafka_partition = {partition}) AND "
        f"{_OF_USERS} IN ({', '.join(digests)})) OR "
        f"(kafka_partition = {partition} AND coalesce(log, 0) = {log} AND type = '{FORGET}' AND "
        f"user_id IN ({', '.join(digests)}) AND kafka_offset IN ({', '.join(offsets)}))"
        for partition, (digests, offsets) in by_partition.items()
    )


def _in_first(offsets: Offsets) -> pc.Expression:
    """Rows before the offsets in a file of the first version, which has no column `log`."""
    spans = [
        (pc.field("kafka_partition") == partition) & (pc.field("kafka_offset") < offset)
        for partition, offset in offsets.items()
    ]
    return windows.either(spans) if spans else pc.scalar(False)
