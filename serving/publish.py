"""A new snapshot: every user's list, every item's neighbours, the popular list, block by block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from serving.fold_in import Recommender
from serving.store import Recommendations, Store
from serving.user_edges import UserEdges

BLOCK = 256  # users or items between two looks at the stream


def publish(
    recommender: Recommender, edges: UserEdges, popular: Recommendations, store: Store
) -> Iterator[int]:
    """Write everything of a snapshot, yielding the number of users written after each block.

    It is interleaved with the live loop, on the same edges, so a user refreshed meanwhile is only
    ever rewritten from edges as new or newer.

    Raises:
        RedisDown: from `next`; what was not written is for the next publish.
    """
    users = edges.users()
    for begin in range(0, len(users), BLOCK):
        left = (user for user in users[begin : begin + BLOCK] if not edges.forgotten(user))
        block = [(user, edges.items(user)) for user in left]
        store.put_users(*encoded(recommender.lists(block, "model", popular)))
        yield min(begin + BLOCK, len(users))
    for begin in range(0, len(recommender.item_ids), BLOCK):
        store.put_neighbors(*encoded(recommender.neighbors(begin, begin + BLOCK)))
        yield len(users)
    manifest = recommender.manifest
    store.put_model(
        {
            "version": manifest.version,
            "trained_at": manifest.trained_at,
            "users": manifest.users,
            "items": manifest.items,
            "edges": manifest.edges,
            "recall@20": round(manifest.metrics.get("recall@20", 0.0), 5),
            "ndcg@20": round(manifest.metrics.get("ndcg@20", 0.0), 5),
        }
    )


def encoded(lists: Sequence[tuple[str, Recommendations]]) -> tuple[list[str], list[bytes]]:
    """Ids, and the JSON of their lists."""
    return [key for key, _ in lists], [msgspec.json.encode(value) for _, value in lists]
