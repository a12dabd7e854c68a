"""What is left of a user who was forgotten: a row of type `forget` with a digest for an id.

The row tells readers that grow with the store what to drop, and to anyone else nothing but that
somebody was forgotten.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from consumer.event.rules import FORGET

Places = Mapping[tuple[int, int], int]  # (log, partition) -> offset
IS_EVENT = (pc.field("type") != FORGET) | pc.field("type").is_null()  # any type but `forget`


class Notice(NamedTuple):
    """That a user was forgotten.

    stamp: newest ingest time, epoch microseconds, 0 where no row has one; places: the newest
    `forget` of each partition of each log.
    """

    stamp: int
    places: Places

    def with_other(self, other: Notice) -> Notice:
        """What this one and another one of the same user say."""
        return Notice(max(self.stamp, other.stamp), latest(self.places, other.places))


def latest(places: Places, others: Places) -> Places:
    """The later offset of each partition of each log."""
    later = {key: offset for key, offset in others.items() if offset > places.get(key, -1)}
    return {**places, **later}


def digest(user: str) -> str:
    """SHA-256 of a user's id in hexadecimal: the user_id of the row that says it was forgotten."""
    return hashlib.sha256(user.encode()).hexdigest()


def rows_of(users: Collection[str]) -> pc.Expression:
    """The rows of some users.

    A row of type `forget` is none of them, although the id of a user may be like the digest in it.
    """
    known = pc.field("user_id").isin(pa.array(list(users), pa.string()))
    return known & IS_EVENT


def split(rows: pa.Table) -> tuple[pa.Table, set[str]]:
    """Rows of the edge store without those of type `forget`, and the digests of these.

    All other rows count, wherever they stand: what a forgetting took is no longer in the store.
    """
    forgets = pc.equal(rows["type"], FORGET)
    if not pc.any(forgets).as_py():
        return rows, set()
    digests = set(rows["user_id"].filter(forgets).to_pylist())
    return rows.filter(pc.invert(forgets)), digests


def notices(rows: pa.Table) -> dict[str, Notice]:
    """Whom the rows say to be forgotten, by the digests of their ids."""
    forgets = rows.filter(pc.equal(rows["type"], FORGET))
    columns = (
        forgets["user_id"],
        pc.fill_null(forgets["ingested_at"].cast(pa.int64()), 0),
        pc.fill_null(forgets["log"], 0),
        forgets["kafka_partition"],
        forgets["kafka_offset"],
    )
    found: dict[str, Notice] = {}
    for row in zip(*(column.to_pylist() for column in columns), strict=True):
        user, stamp, log, partition, offset = row
        is_ours = partition is not None and offset is not None  # else another writer's
        notice = Notice(stamp, {(log, partition): offset} if is_ours else {})
        found[user] = notice.with_other(found[user]) if user in found else notice
    return found


def matching(users: pa.Array, digests: Collection[str]) -> list[int]:
    """Positions in `users` of those whose digest is among `digests`."""
    if not digests:
        return []
    return [at for at, user in enumerate(users.to_pylist()) if digest(user) in digests]
