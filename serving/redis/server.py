"""What a Redis tells of itself: who it is, and whether it throws keys away for lack of memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import redis


class Server(NamedTuple):
    """The answer to INFO; of a Cluster that of all primaries together.

    runs: their run ids; keys: in the database that is used; expired: keys whose time was over.
    """

    runs: str
    keys: int
    evicted: int
    expired: int
    policy: str
    maxmemory: int

    def evicts(self, expiring: bool) -> bool:
        """Whether it throws lists away where memory lacks; `expiring`: they have a time to live."""
        if not self.maxmemory or self.policy == "noeviction":
            return False
        return expiring or not self.policy.startswith("volatile")

    @property
    def trouble(self) -> str:
        """In words, with the mending."""
        return (
            f"Redis throws keys away to make room: maxmemory_policy is {self.policy}, "
            f"evicted_keys {self.evicted}, maxmemory {self.maxmemory} bytes. Users without a list "
            "read the popular one. Raise maxmemory, and set maxmemory-policy noeviction"
        )


def asked(nodes: Sequence[redis.Redis], database: int) -> Server:
    """Ask the servers that hold the keys."""
    infos = [node.info() for node in nodes]

    def total(name: str) -> int:
        return sum(int(info.get(name, 0)) for info in infos)

    policies = [str(info.get("maxmemory_policy", "unknown")) for info in infos]
    return Server(
        " ".join(sorted(str(info.get("run_id")) for info in infos)),
        sum(int(info.get(f"db{database}", {}).get("keys", 0)) for info in infos),
        total("evicted_keys"),
        total("expired_keys"),
        next((each for each in policies if each != "noeviction"), "noeviction"),
        total("maxmemory"),
    )
