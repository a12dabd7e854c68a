from pathlib import Path

from consumer.edge.store import EdgeStore
from consumer.ingest.counts import Counts
from tests.test_edges import rows


def test_each_user_and_item_counts_once_whoever_wrote_it(tmp_path: Path) -> None:
    counts, mine, other = Counts(), EdgeStore(str(tmp_path), "t"), EdgeStore(str(tmp_path), "t")
    mine.append(rows(0, 0, 100), {0: 0}, {0: 100})
    counts.grow(mine)
    assert (counts.users, counts.items) == (100, 100)
    other.append(rows(1, 50, 150), {1: 50}, {1: 150})  # the users u50 to u149
    counts.grow(mine)
    assert (counts.users, counts.items) == (150, 150)
    mine.tidy()
    counts.grow(mine)
    assert (counts.users, counts.items) == (150, 150)


def test_large_counts_are_right_within_one_per_cent(tmp_path: Path) -> None:
    counts, store = Counts(), EdgeStore(str(tmp_path), "t")
    store.append(rows(0, 0, 200_000), {0: 0}, {0: 200_000})
    counts.grow(store)
    assert abs(counts.users - 200_000) < 2_000
