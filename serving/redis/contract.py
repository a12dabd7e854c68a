"""The keys in Redis and what they hold.

<prefix>:rec:<user_id>         a user's list        STRING, JSON of Recommendations
<prefix>:popular               for everyone else    STRING, the same
<prefix>:neighbors:<item_id>   similar items        STRING, the same
<prefix>:model                 of the lists         HASH of MODEL
<prefix>:generation            see life.py          STRING, random
<prefix>:published             the edition of the lists of each Kafka partition   HASH
<prefix>:share:<partition>     see share.py         STRING, JSON of Share; empty
"""

from __future__ import annotations

from typing import Literal

import msgspec

from process.errors import StreamGCNError

MODEL = ("version", "trained_at", "users", "items", "edges", "recall@20", "ndcg@20")


class ForeignValue(StreamGCNError):
    """A key of the contract holds what serving did not write."""


class Recommendations(msgspec.Struct):
    """One value of the contract; `items`, `scores` and `because` run in parallel, best first.

    `because` names the user's own item with the largest share of the score; empty in lists that
    no user's items led to. event_at and updated_at are epoch milliseconds.
    """

    items: list[str]
    scores: list[float]
    because: list[str]
    model: str
    source: Literal["model", "live", "popular"]
    event_at: int
    updated_at: int


def read(key: str, value: bytes) -> Recommendations:
    """The list that a key's value is.

    Raises:
        ForeignValue: it is none.
    """
    try:
        found = msgspec.json.decode(value, type=Recommendations)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise foreign(key, str(error)) from None
    if len(found.items) != len(found.scores):
        raise foreign(key, "items and scores differ in length")
    if found.because and len(found.because) != len(found.items):
        raise foreign(key, "items and because differ in length")
    return found


def foreign(key: str, why: str) -> ForeignValue:
    """The error of a key that holds something else."""
    return ForeignValue(
        f"{key!r} in Redis holds no list of StreamGCN ({why}): another program wrote it. Delete "
        "the key, or give StreamGCN a REDIS_PREFIX of its own; serving writes the list again"
    )
