"""Events of a file in the order of their times, sorted in little memory."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from consumer.event.rules import ID_BYTES
from streamgcn.files import ordered
from streamgcn.files.ordered import Ordered


@pytest.mark.parametrize(
    ("blocks", "width"), [(100, 6), (15, ID_BYTES)], ids=["short ids", "the longest ids"]
)
def test_many_times_the_bytes_that_the_memory_is_meant_for_are_put_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blocks: int, width: int
) -> None:
    monkeypatch.setattr(ordered, "MEMORY_MB", 16)  # too little for both
    monkeypatch.setattr(ordered, "SMALL_FILE", 10_000_000)
    n = 20_000
    ids = pa.array([f"u{number}".ljust(width, "x") for number in range(n)])
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
    places = np.argsort(times)[: n + 1]
    assert found["user_id"][: n + 1].equals(pa.chunked_array([ids.take(pa.array(places % n))]))
