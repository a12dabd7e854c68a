"""The process `streamgcn serving`: waits for what it needs, then runs the loop."""

from __future__ import annotations

import gc
import logging
from contextlib import suppress

import torch

from consumer.edge.waiting import wait_for_store
from consumer.kafka.subscription import Subscription
from consumer.kafka.topics import wait_for_topics
from process.running import Running
from serving.edges.user_edges import UserEdges
from serving.items.served_model import ServedModel
from serving.lists.recommender import Recommender
from serving.loop.forgetting import Forgetting
from serving.loop.growing import Growing
from serving.loop.loop import ServingLoop
from serving.loop.model_slot import ModelSlot
from serving.redis.errors import RedisDown, RedisMisconfigured
from serving.redis.store import Store
from serving.settings import ServingSettings
from trainer.device import device
from trainer.lifecycle.live import LiveModel
from trainer.lifecycle.manifest import Snapshot, SnapshotError
from trainer.lifecycle.snapshots import Snapshots

log = logging.getLogger("serving")


def run(settings: ServingSettings, process: Running) -> None:
    """Serve until told to stop.

    Raises:
        RedisMisconfigured, SettingsError: waiting for Redis or MODEL_STORE would not help.
    """
    snapshots = Snapshots(settings.model_store)
    with suppress(SnapshotError):  # an object store that is away is waited for
        snapshots.check()
    store = Store(settings.redis_url, settings.redis_prefix, settings.redis_ttl_seconds)
    check_redis(store)
    with process.health.waiting("Kafka"):
        wait_for_topics(settings, process.stop, log, dead=None)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # each of them works for itself
    gc.set_threshold(100_000, 50, 100)  # edges are many objects, and in no cycles
    edges = UserEdges(settings.weighing(), held=frozenset())
    forgetting = Forgetting(store, edges)
    topic = settings.kafka_topic
    with process.health.waiting("the edge store"):
        edge_store = wait_for_store(settings.edge_store, topic, process.stop, log)
    growing = Growing(edge_store, topic, edges, forgetting, log)
    on = device(settings.device)

    def prepare(snapshot: Snapshot) -> Recommender:
        return Recommender(ServedModel(snapshot, on), settings.top_k, threads)

    live = LiveModel(snapshots, log)
    slot = ModelSlot(live, prepare, edges, forgetting, log)
    group = f"{settings.kafka_group}-serving"
    # What the start has made stays: a search for garbage there would take 0.1 s each time.
    gc.freeze()
    with Subscription(settings, group, log, process.stop, process.health) as reader:
        ServingLoop(settings, process, store, reader, edges, growing, forgetting, slot, log).run()
    slot.close()
    growing.close()
    store.close()
    log.info("Stopped.")


def check_redis(store: Store) -> None:
    """Try a write.

    Raises:
        RedisMisconfigured: waiting for Redis would not help.
    """
    try:
        store.generation()
    except RedisMisconfigured:
        raise
    except RedisDown:
        pass  # it is waited for
