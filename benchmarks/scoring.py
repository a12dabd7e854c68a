"""Top 50 of all items for many users: the product's way against torch and faiss.

The product folds the users in from their edges, scores, adds the neighbours, leaves out what they
have and takes the top, each core on a part of a block, as in serving; `explained` is the same with
`because`, everything but the JSON. The rivals get ready user vectors and do only the inner products
and the top: `torch.topk(users @ items.T)` by blocks, and faiss' exact IndexFlatIP. At the default
blend's 1,152 dimensions, and at 128 for the learned part alone, which has no neighbours.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import faiss
import numpy as np
import torch
from torch import Tensor

from benchmarks import synthetic
from benchmarks.synthetic import Result, Sizes
from serving.items.served_model import ServedModel, UserBlock
from serving.lists.recommender import LARGEST_BLOCK, Recommender
from serving.lists.topk import FirstPass, best, topk
from trainer.embedding.blend import BlendEmbeddings
from trainer.embedding.edges import Own, own
from trainer.embedding.embeddings import Embeddings
from trainer.lifecycle.snapshots import Snapshots

CPU = torch.device("cpu")
K = 50
BLOCKS = 16
ROUNDS = 3
Block = tuple[Tensor, Own]


def scoring(sizes: Sizes, shop: Path) -> Result:
    """Users a second of each, and the product's over the others'."""
    synthetic.prepare(sizes, shop)
    graph = synthetic.graph(sizes)
    snapshots = Snapshots(str(shop / "models"))
    snapshot = snapshots.read(snapshots.marks.live() or "")
    blend = snapshot.embeddings
    users = torch.randperm(sizes.users, generator=torch.Generator().manual_seed(0))
    blocks = [
        (block, own(graph, block))
        for block in torch.split(users[: BLOCKS * LARGEST_BLOCK], LARGEST_BLOCK)
    ]
    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(threads)
    made: Result = {}
    for name, model in (("default blend", blend), ("learned part alone", learned_alone(blend))):
        outgoing = model.outgoing
        vectors = [model.user_vectors(*block) for block in blocks]
        index = faiss.IndexFlatIP(outgoing.shape[1])
        index.add(outgoing.numpy())
        every = torch.cat(vectors).numpy()
        parts = [part for block in blocks for part in split(block, threads)]
        first = FirstPass.of(model, K)
        served = ServedModel(replace(snapshot, embeddings=model), CPU)
        recommender = Recommender(served, K, threads)
        ways: dict[str, Callable[[], object]] = {
            "product": partial(product, model, first, parts, pool),
            "explained": partial(explained, recommender, blocks),
            "torch": partial(inner_products, vectors, outgoing),
            "faiss": partial(index.search, every, K),
        }
        rates = measured(ways, len(every))
        made[name] = {
            "dimensions": outgoing.shape[1],
            "first_pass": (first.leading, first.candidates) if first else None,
            "users_per_s": {way: round(rate) for way, rate in rates.items()},
            "over_torch": round(rates["product"] / rates["torch"], 3),
            "over_faiss": round(rates["product"] / rates["faiss"], 3),
            "of_the_exact_lists": round(
                shared(product(model, first, parts, pool), exact(model, parts)), 4
            ),
        }
    return made | {"threads": threads, "block": LARGEST_BLOCK, "items": sizes.items}


def split(block: Block, n: int) -> list[Block]:
    """Parts of a block of users."""
    users, edges = block
    size = -(-len(users) // n)
    begins = range(0, len(users), size)
    return [(users[b : b + size], edges.slice(b, min(b + size, len(users)))) for b in begins]


def product(
    model: Embeddings, first: FirstPass | None, parts: list[Block], pool: ThreadPoolExecutor
) -> list[Tensor]:
    """Items of each part's lists, as serving ranks them."""

    def ranked(part: Block) -> Tensor:
        users, edges = part
        return best(model, first, users, edges, K)[1]

    with one_thread():
        return list(pool.map(ranked, parts))


def explained(recommender: Recommender, blocks: list[Block]) -> None:
    """The lists of each block with what led to them."""
    with one_thread():
        for users, edges in blocks:
            list(recommender.rank(UserBlock(users, edges, users.numpy())))


def inner_products(vectors: list[Tensor], outgoing: Tensor) -> None:
    """The top of the plain products of each block's vectors and all items'."""
    for each in vectors:
        (each @ outgoing.T).topk(K)


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch on one thread, as in serving, whose own threads do the work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def exact(model: Embeddings, blocks: list[Block]) -> list[Tensor]:
    """The same, all items ranked by all columns."""
    return [topk(model.score(users, edges), edges, K)[1] for users, edges in blocks]


def shared(ours: list[Tensor], theirs: list[Tensor]) -> float:
    """Share of the items of each list that are in the other's, mean over users."""
    pairs = zip(ours, theirs, strict=True)
    same = torch.cat([(a[:, :, None] == b[:, None]).any(2) for a, b in pairs])
    return float(same.float().mean())


def learned_alone(blend: Embeddings) -> Embeddings:
    """The learned part of a blend on its own."""
    base = blend.tensors["base"]
    last = {
        name: blend.tensors[name][:, -blend.dim :].contiguous() for name in ("incoming", "outgoing")
    }
    return BlendEmbeddings("lightgcn", blend.layers, blend.cosine, {"base": base} | last)


def measured(ways: dict[str, Callable[[], object]], n: int) -> dict[str, float]:
    """Users a second of each way, the median of rounds of all in turn after one to warm up."""
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS + 1):
        for name, work in ways.items():
            begun = time.monotonic()
            work()
            rates[name].append(n / (time.monotonic() - begun))
    return {name: float(np.median(each[1:])) for name, each in rates.items()}
