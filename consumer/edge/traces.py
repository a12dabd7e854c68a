"""What is left of a user who was forgotten: a row of type `forget` with a digest for an id.

The row tells readers that grow with the store what to drop, and to anyone else nothing but that
somebody was forgotten. This file needs pyarrow alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection

import pyarrow as pa
import pyarrow.compute as pc

FORGET = "forget"


def digest(user: str) -> str:
    """SHA-256 of a user's id in hexadecimal: the user_id of the row that says it was forgotten."""
    return hashlib.sha256(user.encode()).hexdigest()


def split(rows: pa.Table) -> tuple[pa.Table, set[str]]:
    """Rows of the edge store without those of type `forget`, and the digests of these.

    Other rows of the same read are of after the forgetting, wherever they stand: those of before
    are no longer in the store.
    """
    forgets = pc.equal(rows["type"], FORGET)
    if not pc.any(forgets).as_py():
        return rows, set()
    digests = set(rows["user_id"].filter(forgets).to_pylist())
    return rows.filter(pc.invert(forgets)), digests


def notices(rows: pa.Table) -> dict[str, dict[int, int]]:
    """Where the rows say that users were forgotten: digest -> partition -> offset."""
    found: dict[str, dict[int, int]] = {}
    forgets = rows.filter(pc.equal(rows["type"], FORGET))
    columns = (forgets[name].to_pylist() for name in ("user_id", "kafka_partition", "kafka_offset"))
    for user, partition, offset in zip(*columns, strict=True):
        found.setdefault(user, {})[partition] = offset
    return found


def matching(users: pa.Array, digests: Collection[str]) -> list[int]:
    """Positions in `users` of those whose digest is among `digests`."""
    if not digests:
        return []
    return [at for at, user in enumerate(users.to_pylist()) if digest(user) in digests]
