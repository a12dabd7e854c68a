"""A new snapshot: the lists of every user of some partitions, the neighbours of their share of the
items, and at the end the word that it is done; block by block."""

from __future__ import annotations

from collections.abc import Iterator

from serving.fold_in import Recommender
from serving.store import Recommendations, Store
from serving.user_edges import UserEdges


def publish(
    recommender: Recommender,
    edges: UserEdges,
    popular: Recommendations,
    store: Store,
    partitions: set[int],
    of: int,
    mark: str,
) -> Iterator[float]:
    """Write what belongs to some of the topic's partitions, yielding the share that is done.

    It is interleaved with the live loop, on the same edges, so a user refreshed meanwhile is only
    ever rewritten from edges as new or newer. What belongs to other partitions is written by those
    who read them; the snapshot's items belong to partitions by turns, new ones to all who know
    them.

    Args:
        partitions: numbers from 0 to `of` - 1.
        mark: written for each of them when all is done.

    Raises:
        RedisDown: from `next`; what was not written is for the next publish.
    """
    users, size = edges.users(partitions), recommender.block
    n_items, trained = len(recommender.item_ids), recommender.trained.n_items
    mine = [
        range(begin, min(begin + size, trained))
        for begin in range(0, trained, size)
        if begin // size % of in partitions
    ]
    mine += [range(begin, min(begin + size, n_items)) for begin in range(trained, n_items, size)]
    blocks = -(-len(users) // size) + len(mine)
    for done, begin in enumerate(range(0, len(users), size), 1):
        block = [user for user in users[begin : begin + size] if edges.has(user)]
        store.put_users(*recommender.lists(block, edges, "model", popular))
        yield done / blocks
    for done, items in enumerate(mine, blocks - len(mine) + 1):
        store.put_neighbors(*recommender.neighbors(items))
        yield done / blocks
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
    store.put_published(partitions, mark)
