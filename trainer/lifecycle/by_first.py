"""What each rank does by itself, or the first one alone, such as writing, ends alike on all."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import msgspec
import numpy as np

from process.errors import StreamGCNError, in_one_line
from process.shutdown import Stopped
from trainer.lifecycle.lease import LeaseLost
from trainer.lifecycle.manifest import Manifest, SnapshotError, StoreAway
from trainer.ranks import Ranks

T = TypeVar("T")


class RankFailed(StreamGCNError):
    """What a rank tried has failed; all ranks know, and go on."""


# What all ranks raise alike. Of several errors at once the first kind counts; any error of another
# kind becomes a RankFailed.
RAISED_BY_ALL: tuple[type[StreamGCNError | Stopped], ...] = (
    LeaseLost, Stopped, RankFailed, SnapshotError, StoreAway,
)  # fmt: skip


class _Ended(msgspec.Struct):
    """How it ended on a rank: well, or with an error of this kind."""

    rank: int
    kind: str = ""
    text: str = ""


def by_each(act: Callable[[], T], ranks: Ranks) -> T:
    """Let each rank act; where one fails, all do, with an error of the same kind.

    Raises:
        LeaseLost, Stopped, SnapshotError, StoreAway: `act` raises it on a rank.
        RankFailed: `act` raises anything else; a rank that is alone raises the same as `act`.
    """
    if not ranks.several:
        return act()
    error: Exception | None = None
    own = _Ended(ranks.rank)
    try:
        made = act()
    except Exception as raised:
        error, own = raised, _Ended(ranks.rank, _kind(raised), in_one_line(raised))
    line = np.frombuffer(msgspec.json.encode(own) + b"\n", np.uint8)
    lines = ranks.joined(line).tobytes().splitlines()
    ended = [msgspec.json.decode(each, type=_Ended) for each in lines]
    for kind in RAISED_BY_ALL:
        for each in ended:
            if each.kind == kind.__name__:
                if error and own.kind == each.kind and kind is not RankFailed:
                    raise error
                raise kind(f"process {each.rank} of this training: {each.text}") from error
    return made


def by_first(act: Callable[[], Manifest], ranks: Ranks) -> Manifest:
    """Let the first rank act, and tell the others what came of it.

    Raises:
        As `by_each`.
    """
    if not ranks.several:
        return act()
    made = by_each(lambda: act() if ranks.first else None, ranks)
    return msgspec.json.decode(ranks.said(msgspec.json.encode(made)), type=Manifest)


def _kind(error: Exception) -> str:
    found = next((kind for kind in reversed(RAISED_BY_ALL) if isinstance(error, kind)), RankFailed)
    return found.__name__
