"""One trainer at a time writes to a MODEL_STORE."""

import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.services import wait_for
from trainer.lifecycle import lease
from trainer.lifecycle.folder import Folder
from trainer.lifecycle.lease import LEASE, Lease, LeaseLost
from trainer.lifecycle.storage import Storage, opened

HOLD = """
import sys, time
from trainer.lifecycle.lease import Lease
from trainer.lifecycle.storage import opened
held = Lease(opened(sys.argv[1]))
print(held.take(), flush=True)
time.sleep(600)
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "SETTLE", 0.1)
    monkeypatch.setattr(lease, "BEAT", 0.1)


def start(model_store: Path | str) -> "subprocess.Popen[str]":
    """Another process that takes the lease if it can."""
    return subprocess.Popen(
        [sys.executable, "-c", HOLD, str(model_store)], stdout=subprocess.PIPE, text=True
    )


def has_it(child: "subprocess.Popen[str]") -> bool:
    assert child.stdout
    with child.stdout as said:
        return said.readline() == "True\n"


def other(model_store: Path | str) -> "subprocess.Popen[str]":
    """Another process that holds the lease."""
    child = start(model_store)
    assert has_it(child)
    return child


def foreign(storage: Storage) -> None:
    """Make the holder one of another machine, which cannot be asked whether it lives."""
    change(storage, machine="another", host="elsewhere")


def change(storage: Storage, **values: object) -> None:
    """What the lease says, in part."""
    found = storage.look(LEASE, lease.MOST)
    assert found
    storage.write(LEASE, json.dumps(json.loads(found.content) | values).encode())


def test_a_second_trainer_stands_by_and_says_once_who_holds_the_store(
    model_store: str, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = Lease(opened(model_store)), Lease(opened(model_store))
    assert first.take()
    assert first.take()
    assert not second.take()
    assert not second.take()
    assert len(caplog.messages) == 1
    assert f"process {os.getpid()} on " in caplog.text
    first.confirm()
    with pytest.raises(LeaseLost):
        second.confirm()
    first.release()
    assert second.take()
    second.release()
    assert opened(model_store).look(LEASE, lease.MOST) is None


def test_the_lease_of_a_killed_trainer_is_taken_over_at_once(
    model_store: str, caplog: pytest.LogCaptureFixture
) -> None:
    held = other(model_store)
    mine = Lease(opened(model_store))
    assert not mine.take()
    held.kill()
    held.wait()
    assert mine.take()
    assert f"process {held.pid} on" in caplog.text.splitlines()[-1]
    mine.release()


def test_the_lease_of_another_machine_is_taken_over_when_it_is_no_longer_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1_000.0
    held = other(tmp_path)
    held.kill()
    held.wait()
    foreign(Folder(tmp_path))
    monkeypatch.setattr(lease, "time", SimpleNamespace(monotonic=lambda: now))
    mine = Lease(Folder(tmp_path))
    for touch in range(3):
        os.utime(tmp_path / LEASE, (touch, touch))  # by a clock that is far behind
        assert not mine.take()
        now += 0.9 * lease.EXPIRES
        assert not mine.take()
    now += 0.2 * lease.EXPIRES
    assert mine.take()
    mine.release()


def test_a_trainer_that_was_halted_writes_nothing_when_it_wakes(
    model_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "EXPIRES", 0.5)
    first, second = Lease(opened(model_store)), Lease(opened(model_store))
    assert first.take()
    first._end.set()  # as if its thread were halted with it
    foreign(opened(model_store))
    wait_for("the lease", second.take)
    with pytest.raises(LeaseLost, match="another trainer has taken"):
        first.confirm()
    assert not first.held
    second.confirm()
    second.release()


def test_two_that_take_it_at_the_same_time_do_not_both_have_it(model_store: str) -> None:
    children = [start(model_store) for _ in range(3)]
    try:
        assert [has_it(child) for child in children].count(True) == 1
    finally:
        for child in children:
            child.kill()
            child.wait()


@pytest.mark.parametrize("content", [b"", b"\xff", b"{}", b'{"id": 7}', b"[" * 5_000])
def test_a_lease_that_says_nothing_expires_as_well(
    content: bytes, model_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "EXPIRES", 0.3)
    opened(model_store).write(LEASE, content)
    mine = Lease(opened(model_store))
    assert not mine.take()
    wait_for("the lease", mine.take)
    mine.release()


def test_a_lease_of_a_later_version_is_understood(model_store: str) -> None:
    held = other(model_store)
    change(opened(model_store), colour="green")
    os.kill(held.pid, signal.SIGKILL)
    held.wait()
    mine = Lease(opened(model_store))
    assert mine.take()
    mine.release()


def test_where_the_store_is_deleted_its_trainer_goes_on_holding_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    mine = Lease(Folder(tmp_path / "models"))
    assert mine.take()
    (tmp_path / "models" / LEASE).unlink()
    (tmp_path / "models").rmdir()
    assert mine.take()
    mine.confirm()
    assert not caplog.messages
    mine.release()
