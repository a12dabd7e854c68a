"""What a serving process holds goes with its share and its model, not with what it has read."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from consumer.edge.order import taken
from consumer.edge.schema import SCHEMA
from consumer.edge.store import EdgeStore
from trainer.embedding.blend import BlendEmbeddings
from trainer.lifecycle.manifest import Manifest, Snapshot
from trainer.lifecycle.snapshots import Snapshots

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="what is resident is read from /proc"
)

ROWS, USERS = 600_000, 60_000
OF_ONE_SHARE = """
import sys
import types

from streamgcn import __main__ as entry

def run():
    import torch
    from consumer.edge.store import EdgeStore
    from serving.edges.user_edges import UserEdges
    from serving.loop.looking import Looking
    from tests.memory import memory
    from trainer.graph.weights import Weighing

    store, edges = EdgeStore(sys.argv[2], "t"), UserEdges(Weighing(), held=frozenset())
    before = memory("RssAnon")
    for _ in edges.hold(store, frozenset({1}), set()):
        pass
    held = memory("RssAnon") - before
    reads = types.SimpleNamespace(mine=frozenset({1}), are_shared=True)
    looking = Looking(sys.argv[2], "t", edges, reads)  # who wrote the users' lists before
    looking.begin()
    while looking._looks_back:
        looking.step()
    looking._thread.shutdown()
    looked_back = memory("RssAnon") - before
    print(edges.n_users, len(edges.graph), held / 1e6, looked_back / 1e6)
    sys.exit()

command = types.ModuleType("streamgcn.cli.main")
command.main = run
sys.modules["streamgcn.cli.main"] = command
entry.main()
"""
OF_A_MODEL = """
import sys

import torch
from serving.items.served_model import ServedModel
from tests.memory import memory
from trainer.lifecycle.snapshots import Snapshots

snapshots = Snapshots(sys.argv[1])
before = memory("RssAnon"), memory("RssFile")
model = ServedModel(snapshots.read("20260101T000000.000000Z"), torch.device("cpu"))
print((memory("RssAnon") - before[0]) / 1e6, (memory("RssFile") - before[1]) / 1e6)
"""
OF_LISTS = """
import sys
import types

from streamgcn import __main__ as entry

def run():
    import torch
    from serving.lists.topk import FirstPass
    from tests.memory import memory

    first = FirstPass(torch.ones(2_400, 576).to(torch.bfloat16), 0, 2)
    model = types.SimpleNamespace(vectors=0, n_items=2_000)
    for n in range(801):
        model.n_items = 2_000 + n // 8  # as new items come
        scores = first.scores(model, torch.ones(1 + n % 64, 576))
        assert scores.shape == (1 + n % 64, model.n_items)
        assert (scores == 576).all()
        if n == 0:
            before = memory("RssAnon")
    print((memory("RssAnon") - before) / 1e6)
    sys.exit()

command = types.ModuleType("streamgcn.cli.main")
command.main = run
sys.modules["streamgcn.cli.main"] = command
sys.argv[1:] = ["serving"]
entry.main()
"""


def read_as(command: str, folder: Path) -> tuple[int, int, float, float]:
    """Users, edges, and what they take in MB, in a process that was started with this command and
    holds a hundredth of the users of the store; the last figure is of after it has looked back."""
    made = [sys.executable, "-c", OF_ONE_SHARE, command, str(folder)]
    ended = subprocess.run(made, capture_output=True, text=True, check=True)
    users, edges, held, looked_back = ended.stdout.split()
    return int(users), int(edges), float(held), float(looked_back)


def test_what_serving_has_read_of_users_whom_others_hold_goes_back_to_the_system(
    tmp_path: Path,
) -> None:
    store = EdgeStore.begin(str(tmp_path), "t")
    numbers = np.random.default_rng(0).permutation(ROWS)
    of_one = numbers % USERS % 100 == 0
    rows = pa.table(
        {
            "user_id": pa.array([f"user-{n % USERS}" for n in numbers]),
            "item_id": pa.array([f"item-{n // USERS}" for n in numbers]),
            "interaction": np.ones(ROWS),
            "type": pa.array(["view"] * ROWS),
            "timestamp": pa.array([0] * ROWS, SCHEMA.field("timestamp").type),
            "kafka_partition": of_one.astype(np.int32),
            "kafka_offset": np.where(of_one, np.cumsum(of_one), np.cumsum(~of_one)) - 1,
        }
    ).cast(SCHEMA)
    n_of_one = int(of_one.sum())
    after = {0: ROWS - n_of_one, 1: n_of_one}
    store.append(taken(rows, 1), {0: 0, 1: 0}, after, store.newest())
    users, edges, held, looked_back = read_as("serving", tmp_path)
    assert (users, edges) == (USERS // 100, ROWS // 100)
    assert held < 25
    assert looked_back < 50


def test_lists_of_any_number_of_users_and_items_leave_little_of_torchs_compiled_code() -> None:
    made = [sys.executable, "-c", OF_LISTS]
    ended = subprocess.run(made, capture_output=True, text=True, check=True)
    assert float(ended.stdout) < 25


def test_the_tables_of_a_model_are_in_memory_once(tmp_path: Path) -> None:
    items, width, kept = 10_000, 1_024, 256
    numbers = torch.arange(items * kept, dtype=torch.int32).view(items, kept)
    embeddings = BlendEmbeddings(
        "blend",
        0,
        False,
        {
            "base": torch.empty(1, 0),
            "incoming": torch.ones(items, width),
            "outgoing": torch.ones(items, width),
            "strengths": torch.ones(items),
            "scales": torch.ones(4),
            "squares": torch.ones(width),
            "neighbors": numbers % items,
            "similarities": torch.ones(items, kept),
        },
    )
    tables = sum(table.nbytes for table in embeddings.tensors.values()) / 1e6
    manifest = Manifest(
        "20260101T000000.000000Z", "blend", 0, False, 7, 1, items, 1, 1, {}, {}, {}, {}
    )
    ids = pa.array([f"item-{n}" for n in range(items)])
    Snapshots(str(tmp_path)).write(Snapshot(manifest, embeddings, pa.array(["user"]), ids))
    made = [sys.executable, "-c", OF_A_MODEL, str(tmp_path)]
    ended = subprocess.run(made, capture_output=True, text=True, check=True)
    own, of_file = map(float, ended.stdout.split())
    assert 0.9 * tables < own + of_file < 1.5 * tables
