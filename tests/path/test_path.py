"""The whole path: an event in Kafka becomes a list in Redis, each room a process of its own."""

import json
import time
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from deltalake import DeltaTable
from kafka import KafkaConsumer
from redis import Redis

from consumer.event.json import Event, encode
from consumer.kafka.publisher import Publisher
from tests.rooms import Rooms, started
from tests.services import DATA, PATIENCE, wait_for

RATINGS = DATA / "ml-latest-small-ratings.csv"
QUICK = {"STREAMGCN_EPOCHS": "20", "STREAMGCN_COMMIT_SECONDS": "0.2"}
FIELDS = {"items", "scores", "because", "model", "source", "event_at", "updated_at"}


@pytest.mark.parametrize("events", [30_000, pytest.param(100_004, marks=pytest.mark.long)])
def test_published_ratings_become_lists_each_row_stored_once_although_the_consumer_is_killed(
    kafka: str, redis_url: str, tmp_path: Path, events: int
) -> None:
    if not RATINGS.exists():
        pytest.skip(f"{RATINGS} is absent")
    ratings = pd.read_csv(RATINGS, dtype={"user_id": str, "item_id": str}).head(events)
    file = tmp_path / "ratings.csv"
    ratings.to_csv(file, index=False)
    rated = ratings.groupby("user_id")["item_id"].agg(set).to_dict()
    rooms = Rooms(
        tmp_path, kafka, redis_url, STREAMGCN_MIN_EDGES=str(events), STREAMGCN_TOP_K="50", **QUICK
    )

    def lists_are_valid() -> bool:
        for user, items in rated.items():
            found = rooms.store.user(str(user))
            if found is None or items.intersection(found.items):
                return False  # serving has not read all of the user's events
            assert len(set(found.items)) == len(found.scores) == len(found.because) == 50
            assert items.issuperset(found.because)
        return True

    with started(rooms):
        wait_for("the topic", lambda: "Reading partitions" in rooms.log("consumer"))
        rooms.start_publishing(file)
        wait_for("a part of the events is stored", lambda: 0 < rooms.rows() < events)
        rooms.kill("consumer")
        rooms.start("consumer")
        wait_for("all rows", lambda: rooms.rows() >= events)
        wait_for("all lists", lambda: rooms.store.model() and lists_are_valid(), 2 * PATIENCE)
        with Redis.from_url(redis_url, decode_responses=True) as redis:
            value = str(redis.get(f"{rooms.settings.redis_prefix}:rec:{min(map(str, rated))}"))
        assert json.loads(value).keys() == FIELDS

        assert rooms.run("publish", str(file)).returncode == 0
        wait_for("twice the rows", lambda: rooms.rows() >= 2 * events)
        assert lists_are_valid()
        assert [rooms.stop(room) for room in ("consumer", "trainer", "serving")] == [0, 0, 0]
    stored = DeltaTable(str(tmp_path / "edges")).to_pandas()
    assert len(stored) == 2 * events
    place = ["kafka_partition", "kafka_offset", "user_id", "item_id"]  # of a row of a bulk message
    assert not stored.duplicated(place).any()
    pairs = stored.groupby(["user_id", "item_id", "interaction"]).size()
    assert (pairs == 2).all()
    assert len(pairs) == len(ratings)


def test_a_user_that_the_model_has_not_seen_reads_a_list_after_its_first_event(
    kafka: str, redis_url: str, tmp_path: Path
) -> None:
    # To the neighbours items of other tastes are worth nothing, whatever else is chosen; and a list
    # holds the 20 items of its taste that a user of ten lacks.
    (tmp_path / "model.toml").write_text("low_pass_weight = 0\nlearned_weight = 0\n")
    only = {"STREAMGCN_MODEL_FILE": str(tmp_path / "model.toml")}
    rng = np.random.default_rng(0)
    rooms = Rooms(tmp_path, kafka, redis_url, STREAMGCN_TOP_K="20", **only, **QUICK)
    bought = [
        (f"{b}-{u}", f"{b}-{i}")
        for b in "xyz"
        for u in range(40)
        for i in rng.choice(30, 10, replace=False)
    ]
    with started(rooms):
        wait_for("the topic", lambda: "Reading partitions" in rooms.log("consumer"))
        publisher = Publisher(rooms.settings)

        def touch(user: str, item: str, at: float | None = None) -> None:
            event = Event(user, item, 1.0, int((at or time.time()) * 1000), "view")
            publisher.send(rooms.settings.kafka_topic, encode(event), user.encode())

        bought_at = time.time()  # all at one time, so that order says nothing
        for user, item in bought:
            touch(user, item, bought_at)
        publisher.flush()
        # The first model is soon followed by the one whose numbers are chosen.
        wait_for("both models", lambda: rooms.log("trainer").count("trainer trained ") == 2)
        live = (tmp_path / "models" / "live").read_text().strip()
        wait_for("the lists of the second", lambda: rooms.store.model().get("version") == live)
        popular = wait_for("the popular list", rooms.store.popular)
        assert popular.source == "popular"
        assert len(popular.items) == 20
        assert rooms.store.user("newcomer") is None

        touch("newcomer", "y-3")
        publisher.flush()
        found = wait_for("the newcomer's list", lambda: rooms.store.user("newcomer"))
        assert found.source == "live"
        assert "y-3" not in found.items
        assert all(item.startswith("y-") for item in found.items)
        assert set(found.because) == {"y-3"}

        touch("newcomer", found.items[0])
        publisher.flush()
        wait_for(
            "the touched item to leave the list",
            lambda: found.items[0] not in (rooms.store.user("newcomer") or found).items,
        )
        touch("stranger", "an item that nobody has touched before")
        publisher.flush()
        stranger = wait_for("the stranger's list", lambda: rooms.store.user("stranger"))
        assert stranger.source == "popular"
        assert len(stranger.items) == 20
        trained = rooms.store.model()
        for n in range(20):
            touch(f"y-{n}", "brand new")
        publisher.flush()
        for user in ("y-25", "newcomer"):
            what = f"the new item in the list of {user}, of the taste of those who touched it"
            wait_for(what, partial(lambda u: "brand new" in rooms.items(u), user))
        for user in ("x-25", "z-25", "y-3"):
            assert "brand new" not in rooms.items(user)
        assert rooms.store.model() == trained
        similar = rooms.store.neighbors("z-1")
        assert similar is not None
        assert all(item.startswith("z-") for item in similar.items)
        publisher.close()


def test_malformed_messages_end_in_the_dead_letter_topic_and_the_stream_goes_on(
    kafka: str, redis_url: str, tmp_path: Path
) -> None:
    wrong = {
        b"not JSON at all": "not JSON",
        b'{"user_id":"u"}': "item_id",
        b'{"user_id":"u","item_id":"i","interaction":NaN}': "interaction is nan",
    }
    with Rooms(tmp_path, kafka, redis_url, **QUICK) as rooms:
        rooms.start("consumer")
        wait_for("the topic", lambda: "Reading partitions" in rooms.log("consumer"))
        topic = rooms.settings.kafka_topic
        publisher = Publisher(rooms.settings)
        for value in wrong:
            publisher.send(topic, value, b"key", [("trace", b"7")])
        publisher.send(topic, b'{"user_id":"u","item_id":"i"}', b"key")
        publisher.flush()
        publisher.close()
        wait_for("the good event", lambda: rooms.rows() == 1)
        wait_for("the log line", lambda: "rejected=3 rows=1" in rooms.log("consumer"))
        letters = KafkaConsumer(
            f"{topic}.dead",
            bootstrap_servers=kafka,
            auto_offset_reset="earliest",
            consumer_timeout_ms=int(PATIENCE * 1000),
        )
        found = {
            letter.value: (letter.key, dict(letter.headers))
            for letter in islice(letters, len(wrong))
        }
        letters.close()
    assert found.keys() == wrong.keys()
    for value, (key, headers) in found.items():
        assert key == b"key"
        assert headers["trace"] == b"7"
        assert wrong[value] in headers["error"].decode()
        assert headers["source"].decode().rsplit("/", 1)[0].startswith(f"{topic}/")
