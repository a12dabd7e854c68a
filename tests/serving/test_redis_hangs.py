"""A Redis that takes connections and never answers: serving ends in time all the same."""

import os
import signal
import socket
import time
from pathlib import Path

from redis import Redis

from consumer.edge.store import EdgeStore
from streamgcn.services.ports import free_port
from streamgcn.services.redis import redis_command
from tests.rooms import Rooms
from tests.services import process, wait_for

IN_TIME = 10.0  # seconds from SIGTERM to the end


def ended(rooms: Rooms) -> float:
    """Seconds that serving takes to end with code 0."""
    begun = time.monotonic()
    assert rooms.stop("serving") == 0, rooms.log("serving")
    assert "Traceback" not in rooms.log("serving")
    return time.monotonic() - begun


def test_serving_ends_in_time_where_redis_never_answers(embedded: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        rooms = Rooms(tmp_path, embedded, f"redis://127.0.0.1:{silent.getsockname()[1]}/0")
        EdgeStore.begin(rooms.settings.edge_store, rooms.settings.kafka_topic)
        with rooms:
            rooms.start("serving")
            wait_for("the line", lambda: "Redis does not answer" in rooms.log("serving"))
            time.sleep(1.0)  # somewhere between two tries, or in one
            assert ended(rooms) < IN_TIME


def test_serving_ends_in_time_where_redis_stops_to_answer(embedded: str, tmp_path: Path) -> None:
    port = free_port()
    with process(redis_command(port), port, tmp_path / "redis.log") as server:
        rooms = Rooms(tmp_path, embedded, f"redis://127.0.0.1:{port}/0")
        EdgeStore.begin(rooms.settings.edge_store, rooms.settings.kafka_topic)
        with rooms, Redis(port=port) as redis:
            rooms.start("serving")
            wait_for("serving", lambda: redis.exists(f"{rooms.settings.redis_prefix}:generation"))
            os.kill(server.pid, signal.SIGSTOP)
            try:
                wait_for("the line", lambda: "Redis does not answer" in rooms.log("serving"))
                assert ended(rooms) < IN_TIME
            finally:
                os.kill(server.pid, signal.SIGCONT)
