"""docker-compose.yml: its services' own commands, run here on a real broker and a real Redis."""

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import yaml

from consumer.event.json import Event, encode
from consumer.kafka.publisher import Publisher
from streamgcn.services.ports import free_port
from tests.rooms import Rooms
from tests.services import PATIENCE, ROOT, wait_for

ROOMS = ("consumer", "trainer", "serving")
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]


def test_the_services_as_they_stand_turn_events_into_lists(
    kafka: str, redis_url: str, tmp_path: Path
) -> None:
    ports = {room: free_port() for room in ROOMS}
    rooms = Rooms(tmp_path, kafka, redis_url, STREAMGCN_EPOCHS="20", STREAMGCN_MIN_EDGES="200")
    local = {
        "kafka:19092": kafka,
        "redis://redis:6379/0": redis_url,
        "/data/edges": rooms.env["EDGE_STORE"],
        "/data/models": rooms.env["MODEL_STORE"],
    }
    with rooms:
        for room in ROOMS:
            service = SERVICES[room]
            own = {name: str(value) for name, value in service["environment"].items()}
            metrics = {"STREAMGCN_METRICS_HOST", "STREAMGCN_METRICS_PORT"}
            assert own.keys() <= rooms.env.keys() | metrics
            own = {name: local.get(value, value) for name, value in own.items()}
            own["STREAMGCN_METRICS_PORT"] = str(ports[room])
            program, *arguments = shlex.split(service["command"])
            assert program == "streamgcn"
            rooms.start(*arguments, **own)
        wait_for("the topic", lambda: "Reading partitions" in rooms.log("consumer"))
        publisher = Publisher(rooms.settings)
        for user in range(20):
            for item in range(10):
                event = Event(f"u{user}", f"i{(user + item) % 30}", 1.0, 1_790_000_000_000, "view")
                publisher.send(rooms.settings.kafka_topic, encode(event), event.user_id.encode())
        publisher.flush()
        publisher.close()
        has = {f"i{n}" for n in range(3, 13)}

        def right() -> bool:
            found = rooms.items("u3")
            return bool(found) and not has.intersection(found)

        wait_for("a list without what the user has", right)
        for room in ROOMS:
            check = SERVICES[room]["healthcheck"]["test"]
            assert check[0] == "CMD"
            name, *arguments = [part.replace("9100", str(ports[room])) for part in check[1:]]
            assert name == "python"  # of the image; not all machines have one of this name
            subprocess.run(
                [sys.executable, *arguments], check=True, env=os.environ | {"http_proxy": ""}
            )
        assert [rooms.stop(room) for room in ROOMS] == [0, 0, 0]


def test_the_topics_are_those_of_the_default_settings(apache: str) -> None:
    script = SERVICES["topics"]["command"][-1]
    script = script.replace("/opt/kafka/bin", os.environ["KAFKA_HOME"] + "/bin")
    script = script.replace("kafka:19092", apache)
    made = subprocess.run(
        ["/bin/sh", "-ec", script], check=True, capture_output=True, text=True, timeout=PATIENCE
    )
    assert "Created topic interactions." in made.stdout
    assert "Created topic interactions.dead." in made.stdout


def test_every_service_is_checked_and_restarted_and_images_are_the_official_ones() -> None:
    images = {name: service["image"].split(":")[0] for name, service in SERVICES.items()}
    assert images["kafka"] == images["topics"] == "apache/kafka"
    assert images["redis"] == "redis"
    assert all(
        re.search(r":v?\d+\.\d+\.\d+$", service["image"])
        for service in SERVICES.values()
        if "build" not in service
    )
    for name in ROOMS:
        assert SERVICES[name]["read_only"]
        assert SERVICES[name]["volumes"] == ["data:/data"]
        assert SERVICES[name]["tmpfs"] == ["/tmp"]  # noqa: S108
    for name in ("kafka", "redis", *ROOMS):
        assert SERVICES[name]["healthcheck"]["test"]
        assert SERVICES[name]["restart"] == "unless-stopped"


def test_the_image_has_a_base_of_one_version_and_runs_as_a_user_who_is_not_root() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    [base] = [line for line in lines if line.startswith("FROM ")]
    assert re.fullmatch(r"FROM python:3\.\d+\.\d+-slim", base)
    [user] = [line.split()[1] for line in lines if line.startswith("USER ")]
    assert any(line.startswith("RUN useradd") and f" {user} " in line for line in lines)
    assert lines.index(f"USER {user}") < next(n for n, line in enumerate(lines) if "CMD" in line)
    [uid] = re.findall(r"useradd --uid (\d+) ", "\n".join(lines))
    assert int(uid) > 0


def test_the_gpu_override_reserves_a_gpu_for_the_trainer_and_serving_alone() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.gpu.yml").read_text())["services"]
    assert services.keys() == {"trainer", "serving"}
    for service in services.values():
        [device] = service["deploy"]["resources"]["reservations"]["devices"]
        assert device["driver"] == "nvidia"
        assert device["capabilities"] == ["gpu"]


def test_what_is_installed_holds_every_folder_of_the_rooms() -> None:
    found = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    patterns = [name.removesuffix("*") for name in found["find"]["include"]]
    folders = {
        path.parent.relative_to(ROOT).parts[0] for path in ROOT.glob("[a-z]*/**/__init__.py")
    }
    assert set(patterns) == folders - {"tests", "benchmarks"}
    image = (ROOT / "Dockerfile").read_text()
    assert all(f"COPY {name} {name}\n" in image for name in patterns)
