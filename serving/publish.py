"""Block by block: the lists of users with new events, and of a new snapshot the lists of all users
of some partitions, the neighbours of their share of the items, and the word that all is done.

A block is written in two steps, so that its lists are made while the caller does something else:
the generators yield once when it is begun and once when it is written. Nobody else may write a list
between the two, so none is ever overwritten by one of older edges.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from serving.fold_in import Recommender, Source
from serving.redis.contract import Recommendations
from serving.redis.store import Store
from serving.user_edges import UserEdges


def refresh(
    recommender: Recommender,
    edges: UserEdges,
    popular: Recommendations,
    store: Store,
    live: Sequence[str],
    others: Sequence[str] = (),
) -> Iterator[float]:
    """Write a block of users' lists, if they are not forgotten.

    Args:
        live: users with new events; others: those whose lists are rewritten without.

    Yields:
        the share of it that is done: 0.0, 1.0.

    Raises:
        RedisDown: some lists may be written, some not.
    """
    known = set(live)
    users = [*live, *(user for user in others if user not in known)]
    users = [user for user in users if edges.has(user)]
    sources: list[Source] = ["live" if user in known else "model" for user in users]
    made = recommender.lists(users, edges, sources, popular)
    yield 0.0
    for values in made:
        store.put_users(*values)
    yield 1.0


def publish(
    recommender: Recommender,
    edges: UserEdges,
    popular: Recommendations,
    store: Store,
    partitions: set[int],
    of: int,
    mark: str,
    due: Callable[[int], list[str]],
) -> Iterator[float]:
    """Write what belongs to some of the topic's partitions.

    What belongs to other partitions is written by those who read them; the snapshot's items belong
    to partitions by turns, new ones to all who know them.

    Args:
        partitions: numbers from 0 to `of` - 1.
        mark: written for each of them when all is done.
        due: at most so many users with new events. They take places in a block, where a list costs
            far less than alone.

    Yields:
        the share of it that is done, less than 1 when a block is begun.

    Raises:
        RedisDown: what was not written is for the next publish.
    """
    users, size = edges.users(partitions), recommender.block
    n_items, trained = len(recommender.item_ids), recommender.trained.n_items
    step = 2 * size  # similar items are made in half the time of lists
    mine = [
        range(begin, min(begin + step, trained))
        for begin in range(0, trained, step)
        if begin // step % of in partitions
    ]
    mine += [range(begin, min(begin + step, n_items)) for begin in range(trained, n_items, step)]
    done, lists = 0, len(users) + sum(map(len, mine))
    while done < len(users):
        live = due(size // 2)
        others = users[done : done + size - len(live)]
        for written in refresh(recommender, edges, popular, store, live, others):
            yield (done + written * len(others)) / lists
        done += len(others)
    for items in mine:
        similar = recommender.neighbors(items)
        for written in refresh(recommender, edges, popular, store, due(size // 2)):
            if written:
                for values in similar:
                    store.put_neighbors(*values)
            yield (done + written * len(items)) / lists
        done += len(items)
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
