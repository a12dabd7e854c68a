"""The consumer against a bare poll of the same topic, bulk messages, memory, commits that add up.

Needs an Apache Kafka, named by KAFKA_HOME. Prints JSON. `make bench-ingest` runs all parts.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from deltalake import DeltaTable
from kafka import KafkaConsumer, TopicPartition

from benchmarks.topic_filling import PARTITIONS, USERS, fill_bulk, fill_json
from consumer.edge.order import taken
from consumer.edge.schema import SCHEMA
from consumer.edge.store import EdgeStore, Watermark
from consumer.kafka.topics import wait_for_topics
from consumer.settings import ConsumerSettings
from tests import services

ROUNDS = 5
CONSUMER = """
import resource, sys, threading
from consumer import settings
from consumer.ingest import loop as ingest
from consumer.ingest.metrics import METRICS
from process.running import running
with running("consumer", METRICS, "text", "127.0.0.1", 0) as process:
    ingest.run(settings.ConsumerSettings.load(), process)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def bare(settings: ConsumerSettings, messages: int) -> float:
    """Messages a second of a kafka-python loop that does nothing but poll, after its first poll."""
    consumer = KafkaConsumer(
        bootstrap_servers=settings.kafka_bootstrap_servers,
        enable_auto_commit=False,
        max_poll_records=10_000,
    )
    partitions = [TopicPartition(settings.kafka_topic, p) for p in range(PARTITIONS)]
    consumer.assign(partitions)
    consumer.seek_to_beginning()
    polled = sum(map(len, consumer.poll(timeout_ms=10_000).values()))
    started, skipped = time.monotonic(), polled
    while polled < messages:
        polled += sum(map(len, consumer.poll(timeout_ms=1_000).values()))
    seconds = time.monotonic() - started
    consumer.close()
    return (messages - skipped) / seconds


def committed(settings: ConsumerSettings, events: int) -> tuple[float, int]:
    """Events a second from Kafka to committed rows, from the first commit to the last; peak MiB.

    One consumer process with its usual settings and its usual log.
    """
    env = os.environ | {
        "KAFKA_BOOTSTRAP_SERVERS": settings.kafka_bootstrap_servers,
        "KAFKA_TOPIC": settings.kafka_topic,
        "KAFKA_GROUP": f"{settings.kafka_topic}-{time.time_ns()}",
        "EDGE_STORE": settings.edge_store,
    }
    child = subprocess.Popen(
        [sys.executable, "-c", CONSUMER], env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    store = EdgeStore.begin(settings.edge_store, settings.kafka_topic)
    seen, first, began = 0, 0, 0.0
    while seen < events:
        time.sleep(0.1)  # it reads the log of the store, on the same two cores
        if store.version != (store.newest(), store.version)[1]:
            seen = store.count()
            if not began:
                first, began = seen, time.monotonic()
    seconds = time.monotonic() - began
    child.terminate()
    peak = int(child.communicate(timeout=60)[0])
    return (events - first) / seconds, peak


def speed(folder: Path, address: str, events: int, bulk_events: int) -> dict[str, Any]:
    """Ratio to the bare poll, the median of rounds of both in turn; the rate of bulk messages."""
    settings = _settings(folder, address, "json", 0)
    fill_json(settings, events)
    rounds = []
    for n in range(ROUNDS):
        polled = bare(settings, events)
        rounds.append((committed(_settings(folder, address, "json", n), events)[0], polled))
    many = _settings(folder, address, "bulk", 0)
    fill_bulk(many, bulk_events)
    rate, peak = committed(many, bulk_events)
    median = sorted(rounds, key=lambda each: each[0] / each[1])[ROUNDS // 2]
    return {
        "json_events": events,
        "bare_poll_per_s": round(median[1]),
        "json_committed_per_s": round(median[0]),
        "json_ratio": round(median[0] / median[1], 3),
        "json_ratios": [round(a / b, 3) for a, b in rounds],
        "bulk_events": bulk_events,
        "bulk_committed_per_s": round(rate),
        "bulk_peak_mib": peak,
    }


def memory(folder: Path, address: str, events: int) -> dict[str, Any]:
    """Peak memory of a consumer that catches up on so many JSON events."""
    settings = _settings(folder, address, "catch-up", 0)
    fill_json(settings, events)
    rate, peak = committed(settings, events)
    return {"catch_up_events": events, "catch_up_per_s": round(rate), "catch_up_peak_mib": peak}


def commits(folder: Path, number: int) -> dict[str, Any]:
    """Milliseconds of the 10th, 1,000th, ... commit of 1,000 rows, the median of the ten around,
    with the housekeeping of the consumer going on beside and a reader that follows."""
    from consumer.ingest.housekeeping import Housekeeping

    settings = _settings(folder, "", "commits", 0)
    store = EdgeStore.begin(settings.edge_store, "t")
    reader = EdgeStore(settings.edge_store, "t")
    log = store.newest()
    housekeeping = Housekeeping(settings, services.log)
    names = np.array([f"u{n}" for n in range(USERS)])
    draw = np.random.default_rng(1)
    took, read, seen = [], 0, Watermark()
    for n in range(number):
        at = np.arange(n * 1_000, (n + 1) * 1_000)
        rows = pa.table(
            [
                names[draw.integers(0, USERS, 1_000)],
                names[draw.integers(0, USERS, 1_000)],
                np.ones(1_000),
                ["view"] * 1_000,
                pa.array(at * 1_000_000, pa.timestamp("us", tz="UTC")),
                np.zeros(1_000, np.int32),
                at,
            ],
            schema=SCHEMA,
        )
        started = time.monotonic()
        store.append(taken(rows, n), {0: n * 1_000}, {0: (n + 1) * 1_000}, log)
        took.append((time.monotonic() - started) * 1_000)
        housekeeping.committed()
        if n % 1_000 == 999:
            print(f"{n + 1}: {np.median(took[-100:]):.1f} ms", file=sys.stderr)
        if n % 500 == 0:
            news = reader.news(seen)
            read += sum(len(window) for window in news.read())
            seen = news.end(seen)
    housekeeping.close()
    files = len(DeltaTable(settings.edge_store).file_uris())
    log_files = len(list((Path(settings.edge_store) / "_delta_log").iterdir()))
    wanted = [n for n in (10, 100, 1_000, number) if n <= number]
    return {
        "commit_ms": {n: round(float(np.median(took[max(0, n - 10) : n + 10])), 1) for n in wanted},
        "commit_ms_p99": round(float(np.percentile(took, 99)), 1),
        "files_in_table": files,
        "files_in_log": log_files,
    }


def _settings(folder: Path, address: str, topic: str, number: int) -> ConsumerSettings:
    settings = ConsumerSettings(
        kafka_bootstrap_servers=address or "none",
        kafka_topic=topic,
        edge_store=str(folder / f"{topic}-{number}"),
    )
    if address and not number:
        wait_for_topics(settings, threading.Event(), services.log)
    return settings


def main() -> None:
    """Run the parts that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=["speed", "memory", "commits"])
    parser.add_argument("--events", type=int, default=1_500_000)
    parser.add_argument("--bulk-events", type=int, default=10_000_000)
    parser.add_argument("--catch-up", type=int, default=5_000_000)
    parser.add_argument("--commits", type=int, default=10_000)
    given = parser.parse_args()
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if "commits" in given.parts:
            result |= commits(folder, given.commits)
        if {"speed", "memory"} & set(given.parts):
            with services.apache_kafka(folder) as broker:
                if "speed" in given.parts:
                    result |= speed(folder, broker.address, given.events, given.bulk_events)
                if "memory" in given.parts:
                    result |= memory(folder, broker.address, given.catch_up)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
