"""Events of a file in the order of their times, sorted in little memory."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from streamgcn.files import ordered
from streamgcn.files.ordered import Ordered


def test_many_times_the_rows_that_the_memory_is_meant_for_are_put_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ordered, "MEMORY_MB", 24)  # too little for 2 million rows
    monkeypatch.setattr(ordered, "SMALL_FILE", 500_000)
    n, blocks = 100_000, 20
    ids = pa.array([f"u{number}" for number in range(n)])
    ones, views = pa.array(np.ones(n)), pa.repeat("view", n)
    times = np.random.default_rng(0).permutation(n * blocks)
    with Ordered(tmp_path) as events:
        for begin in range(0, n * blocks, n):
            columns = [ids, ids, ones, views, pa.array(times[begin : begin + n])]
            names = ["user_id", "item_id", "interaction", "type", "timestamp"]
            events.add(pa.table(columns, names))
        found = pa.concat_tables(events.blocks(0))
    moments = found["timestamp"].cast(pa.int64()).to_numpy() // 1000
    assert np.array_equal(moments, np.arange(n * blocks))
    users = found["user_id"].take(pa.array([0, n])).to_pylist()
    places = np.argsort(times)
    assert users == [f"u{places[0] % n}", f"u{places[n] % n}"]
