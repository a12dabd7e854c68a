"""When all lists are published, and when not again; on a real Redis, counted in the log."""

import logging
from collections.abc import Iterator

import pytest
import torch

from consumer.event.json import Event
from consumer.ingest.decode import Position
from serving.edges.user_edges import UserEdges
from serving.items.served_model import ServedModel
from serving.lists.recommender import Recommender
from serving.loop import blocks as loop_blocks
from serving.loop import publication
from serving.loop.blocks import TURNS, Blocks
from serving.loop.due import DueUsers
from serving.loop.popular import Popular
from serving.loop.publication import NEW_ITEMS, OTHER_EDGES, UNFINISHED, Publication
from serving.redis.store import Store
from tests.graphs import blocks
from tests.serving.test_serving import POPULAR, snapshot_of
from trainer.fit.fit import fit
from trainer.graph.weights import Weighing
from trainer.model.hyperparameters import Hyperparameters

log = logging.getLogger("serving")


class Published:
    """A Publication of two partitions, and what it does when the loop asks."""

    def __init__(self, store: Store, recommender: Recommender) -> None:
        self.store, self.recommender = store, recommender
        self.publication = Publication(store, log)
        self.edges = UserEdges(Weighing())
        for n in range(300):
            event = Event(f"u{n}", "0-3", 1.0, 12, "view")
            self.edges.apply(event, n % 2, Position(n, 0))

    def go_on(self, blocks: int = 1_000, edition: str = "v1 word") -> None:
        """What the loop does between `blocks` blocks and a few more looks."""
        for _ in range(blocks):
            self.publication.begin_if_due(self.recommender, self.edges, {0, 1}, 2, edition)
            block = self.publication.next_block_or_end(POPULAR, lambda n: [])
            if block:
                block.write(self.store)
                self.publication.written()


@pytest.fixture(scope="module")
def recommender() -> Recommender:
    made = fit(blocks(), Hyperparameters(dim=8, epochs=10, vectors=4, learned_order=0.0).usual())
    model = ServedModel(snapshot_of(blocks(), made.embeddings), torch.device("cpu"))
    return Recommender(model, 4)


@pytest.fixture
def published(
    redis_url: str,
    recommender: Recommender,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> Iterator[Published]:
    monkeypatch.setattr(publication, "RENEW_AFTER", 0.0)
    monkeypatch.setattr(publication, "RENEW_TIMES", 0.0)
    caplog.set_level(logging.INFO)
    store = Store(redis_url, request.node.name)
    yield Published(store, recommender)
    store.close()


def begun(caplog: pytest.LogCaptureFixture) -> int:
    return sum(line.startswith("Writing") for line in caplog.messages)


def test_a_snapshot_is_published_once(
    published: Published, caplog: pytest.LogCaptureFixture
) -> None:
    published.go_on(100)
    assert begun(caplog) == 1
    assert all(published.store.user(f"u{n}") for n in range(300))
    again = Published(published.store, published.recommender)  # another process takes over
    again.go_on(100)
    assert begun(caplog) == 1
    assert again.publication.progress == 1


def test_new_items_are_published_once_and_not_after_a_snapshot_that_holds_them(
    published: Published, caplog: pytest.LogCaptureFixture
) -> None:
    published.go_on(100)
    published.publication.renew({0, 1}, NEW_ITEMS)
    published.go_on(100)
    assert begun(caplog) == 2
    published.publication.renew({0, 1}, NEW_ITEMS)
    published.publication.start_over()  # a snapshot goes live, which holds the new items
    published.go_on(100, edition="v2 word")
    assert begun(caplog) == 3


def test_what_new_items_come_to_before_a_publish_begins_is_in_it(
    published: Published, caplog: pytest.LogCaptureFixture
) -> None:
    published.publication.renew({0, 1}, NEW_ITEMS)
    published.go_on(100)
    assert begun(caplog) == 1
    published.go_on(2, edition="v1 other word")  # Redis was flushed, and the publish is running
    published.publication.renew({0, 1}, NEW_ITEMS)  # some of its lists lack these
    published.go_on(100, edition="v1 other word")
    assert begun(caplog) == 3


def test_the_log_says_why_lists_are_written_again_also_after_the_partitions_were_lost(
    published: Published, caplog: pytest.LogCaptureFixture
) -> None:
    published.go_on(100)
    published.publication.renew({0}, OTHER_EDGES)
    published.publication.renew({1}, NEW_ITEMS)
    published.go_on(1)
    published.publication.drop()
    published.go_on(100)
    published.publication.renew({1}, OTHER_EDGES)
    published.go_on(100)
    again = [line.split(" again for the users of ") for line in caplog.messages]
    assert [line[1] for line in again if len(line) > 1] == [
        *[f"partitions [0, 1]: {NEW_ITEMS}; {OTHER_EDGES}."] * 2,
        f"partitions [1]: {OTHER_EDGES}.",
    ]


@pytest.mark.parametrize("renewing", [False, True])
def test_a_publish_that_lost_its_partitions_is_done_again_once(
    published: Published, caplog: pytest.LogCaptureFixture, renewing: bool
) -> None:
    if renewing:
        published.go_on(100)
        caplog.clear()
        published.publication.renew({0, 1}, NEW_ITEMS)
    published.go_on(2)
    assert published.publication.running
    published.publication.drop()  # and they come back
    published.go_on(100)
    assert begun(caplog) == 2
    assert published.publication.progress == 1


@pytest.mark.parametrize("has_begun", [False, True])
def test_what_a_process_was_to_write_again_is_written_by_the_process_after_it(
    published: Published, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch, has_begun: bool,
) -> None:  # fmt: skip
    published.go_on(100)
    monkeypatch.setattr(publication, "RENEW_AFTER", 0.0 if has_begun else 1_000.0)
    published.publication.renew({1}, NEW_ITEMS)
    published.go_on(1)
    assert published.publication.running == has_begun
    monkeypatch.setattr(publication, "RENEW_AFTER", 0.0)
    published.publication = Publication(published.store, log)  # the process before is killed
    published.go_on(100)
    assert caplog.messages[-1] == "Wrote all lists of model v1 for the users of partitions [1]."
    assert f"again for the users of partitions [1]: {UNFINISHED}." in caplog.messages[-2]
    assert published.store.published({0, 1}) == {0: "v1 word", 1: "v1 word"}
    published.go_on(100)
    assert begun(caplog) == 2 + has_begun


def test_an_edition_that_an_evicting_redis_threw_away_is_no_cause_and_is_written_again(
    published: Published, caplog: pytest.LogCaptureFixture
) -> None:
    published.go_on(100)
    published.store._commands.delete([published.store._key(n) for n in ("published", "model")])
    published.go_on(100)
    assert begun(caplog) == 1
    published.publication.keep(published.recommender)
    assert published.store.published({0, 1}) == {0: "v1 word", 1: "v1 word"}
    assert published.store.model()["version"] == "v1"


def test_a_publication_whose_lists_are_made_one_at_a_time_goes_on_while_users_are_due(
    published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop_blocks, "GATHER", 0.0)
    due, running = DueUsers(), published.publication
    made = Blocks(published.store, published.edges, due, running, Popular(4))
    running.begin_if_due(published.recommender, published.edges, {0, 1}, 2, "v1 word")
    running.next_block_or_end(POPULAR, lambda n: [])
    running.failed()
    assert running.careful
    for offset in range(5 * TURNS):
        due.add("u7", 1, 1_000 + offset, 0)
        made.begin(published.recommender)
        made.write()
    lists = running._lists
    assert lists
    assert lists._done == 5
    assert made.answered == 5 * (TURNS - 1)  # and the others are the users' with new events
