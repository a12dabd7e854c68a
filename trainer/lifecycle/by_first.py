"""What the first rank does alone, such as writing a snapshot, ends alike on all ranks."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from process.errors import StreamGCNError, in_one_line
from process.shutdown import Stopped
from trainer.lifecycle.lease import LeaseLost
from trainer.lifecycle.manifest import Manifest
from trainer.ranks import Ranks


class FirstFailed(StreamGCNError):
    """What the first rank tried has failed; all ranks know, and go on."""


class _Said(msgspec.Struct):
    """How it ended: with a manifest, or with an error of this kind."""

    manifest: Manifest | None
    kind: str = ""
    text: str = ""


def by_first(act: Callable[[], Manifest], ranks: Ranks) -> Manifest:
    """Let the first rank act, and tell the others what came of it.

    Raises:
        LeaseLost, Stopped: `act` raises it.
        FirstFailed: `act` raises anything else; a rank that is alone raises the same as `act`.
    """
    if not ranks.several:
        return act()
    error: Exception | None = None
    words = b""
    if ranks.first:
        try:
            said = _Said(act())
        except Exception as raised:
            error, said = raised, _Said(None, type(raised).__name__, in_one_line(raised))
        words = msgspec.json.encode(said)
    said = msgspec.json.decode(ranks.said(words), type=_Said)
    if said.manifest:
        return said.manifest
    for kind in (LeaseLost, Stopped):
        if said.kind == kind.__name__:
            raise kind(said.text) from error
    raise FirstFailed(said.text) from error
