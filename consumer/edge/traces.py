"""What is left of a user who was forgotten: a row of type `forget` with a digest for an id.

The row tells readers that grow with the store what to drop, and to anyone else nothing but that
somebody was forgotten.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection

import pyarrow as pa
import pyarrow.compute as pc

from consumer.event.rules import FORGET

IS_EVENT = (pc.field("type") != FORGET) | pc.field("type").is_null()  # any type but `forget`


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


def notices(rows: pa.Table) -> dict[str, int]:
    """Whom the rows say to be forgotten: digest -> newest ingest time, epoch microseconds.

    It is 0 where a row has none.
    """
    forgets = rows.filter(pc.equal(rows["type"], FORGET))
    stamps = pc.fill_null(forgets["ingested_at"].cast(pa.int64()), 0).to_pylist()
    found: dict[str, int] = {}
    for user, stamp in zip(forgets["user_id"].to_pylist(), stamps, strict=True):
        found[user] = max(stamp, found.get(user, 0))
    return found


def matching(users: pa.Array, digests: Collection[str]) -> list[int]:
    """Positions in `users` of those whose digest is among `digests`."""
    if not digests:
        return []
    return [at for at, user in enumerate(users.to_pylist()) if digest(user) in digests]
