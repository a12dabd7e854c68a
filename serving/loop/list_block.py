"""A block of lists: begun, so that it is made on other threads meanwhile, and then written.

Nobody else may write a list between the two, so no list is overwritten by one of older edges.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from serving.edges.user_edges import UserEdges
from serving.lists.popular_list import PopularList
from serving.lists.recommender import Encoded, ListSource, Recommender
from serving.redis.store import Store


class ListBlock:
    """Lists of users, and similar items of items, that are being made.

    users: whose lists it has, those with new events first.
    """

    def __init__(
        self, users: list[str], lists: Iterable[Encoded], neighbors: Iterable[Encoded]
    ) -> None:
        self.users = users
        self._lists, self._neighbors = lists, neighbors

    @classmethod
    def begin(
        cls,
        recommender: Recommender,
        edges: UserEdges,
        popular: PopularList,
        with_events: Sequence[str],
        others: Sequence[str] = (),
        items: Sequence[int] = (),
    ) -> ListBlock:
        """Begin, with the edges as they are now. A user who is forgotten gets no list here, and
        neither does one who belongs to another process by now.

        Args:
            with_events: users with new events.
            others: users without, whose lists are written again.
            items: numbers of items whose similar items are written.
        """
        known = set(with_events)
        users = [*with_events, *(user for user in others if user not in known)]
        users = [user for user in users if edges.has(user) and not edges.is_away(user)]
        sources: list[ListSource] = ["live" if user in known else "model" for user in users]
        lists = recommender.lists(users, edges, sources, popular)
        return cls(users, lists, recommender.neighbors(items) if items else ())

    def write(self, store: Store) -> None:
        """Write it, once.

        Raises:
            RedisDown: some lists may be written, some not.
        """
        for made in self._lists:
            store.put_users(made.ids, made.values)
        for made in self._neighbors:
            store.put_neighbors(made.ids, made.values)
