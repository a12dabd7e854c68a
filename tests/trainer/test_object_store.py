"""Models in an object store: what a folder has by renaming and locks, it has by conditions."""

import logging
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import obstore
import pytest
from obstore.exceptions import PreconditionError

from consumer.edge.traces import digest
from process.settings import SettingsError
from tests.consumer.test_object_store_refused import (
    Identities,
    answering,
    rights,
    use,
)
from tests.s3 import s3_server
from tests.services import PATIENCE
from tests.threads import begun
from tests.trainer.test_snapshots import NAMES, filled, snapshot
from trainer.lifecycle import lease, pruning
from trainer.lifecycle.bucket import Bucket
from trainer.lifecycle.erasure import erase
from trainer.lifecycle.lease import Lease, LeaseLost
from trainer.lifecycle.live import LiveModel
from trainer.lifecycle.manifest import SnapshotError, StoreAway
from trainer.lifecycle.marks import Changing
from trainer.lifecycle.promotion import LiveChanged, promote, put_live, roll_back
from trainer.lifecycle.pruning import NEWEST, prune
from trainer.lifecycle.snapshots import Snapshots
from trainer.lifecycle.storage import File, StoreTrouble, opened

BEGIN = """
import sys, time
from tests.trainer.test_snapshots import snapshot
from trainer.lifecycle import files
from trainer.lifecycle.snapshots import Snapshots

def hang(*_, **__):
    print("begun", flush=True)
    time.sleep(600)

files.write_ids = hang
Snapshots(sys.argv[1]).write(snapshot(sys.argv[2]))
"""


def test_what_a_killed_trainer_has_begun_is_no_snapshot_and_goes_later(
    s3_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshots = filled(s3_store, NAMES[0])
    child = subprocess.Popen(
        [sys.executable, "-c", BEGIN, s3_store, NAMES[1]], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout
    with child.stdout as said:
        assert said.readline() == "begun\n"
    child.kill()
    child.wait()
    assert "tables.safetensors" in snapshots.storage.states(NAMES[1])
    assert snapshots.versions() == NAMES[:1]
    prune(snapshots)  # another trainer may be at work on it
    assert snapshots.storage.states(NAMES[1])
    monkeypatch.setattr(pruning, "ABANDONED_AFTER", -1.0)
    prune(snapshots)
    assert not snapshots.storage.states(NAMES[1])
    assert snapshots.versions() == NAMES[:1]


def test_nothing_but_snapshots_is_tidied_away(
    s3_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An edge store may lie beside them."""
    snapshots = filled(s3_store, NAMES[0])
    snapshots.storage.write("edges/_delta_log/0.json", b"{}")
    monkeypatch.setattr(pruning, "ABANDONED_AFTER", -1.0)
    prune(snapshots)
    assert snapshots.storage.states("edges")


@pytest.mark.parametrize("snapshot_that_goes", [NAMES[1], NAMES[2]])
def test_a_snapshot_that_goes_live_while_pruning_looks_is_kept(
    s3_store: str, snapshot_that_goes: str
) -> None:
    snapshots, operator = crowded(s3_store), Snapshots(s3_store)
    looks: list[list[str]] = []

    def act(marks: Changing) -> None:
        pruning._drop_old(snapshots, marks)
        if not looks:
            promote(operator, snapshot_that_goes)
        looks.append(snapshots.versions())

    snapshots.marks.change(act)
    assert len(looks) == 2
    assert snapshots.marks.live() == snapshot_that_goes
    assert snapshots.read(snapshot_that_goes).manifest.version == snapshot_that_goes
    others = {NAMES[1], NAMES[2]} - {snapshot_that_goes}
    assert not others.intersection(snapshots.versions())


def promote_beside(
    snapshots: Snapshots, name: str, tries: list[str], other: Callable[[], object]
) -> None:
    """Promote a snapshot; another change comes before the first try is written."""

    def act(marks: Changing) -> None:
        tries.append(name)
        snapshots.promote_in(marks, name)
        if len(tries) == 1:
            other()

    snapshots.marks.change(act)


def test_a_snapshot_that_is_pruned_while_it_is_promoted_does_not_go_live(s3_store: str) -> None:
    snapshots, trainer = crowded(s3_store), Snapshots(s3_store)
    tries: list[str] = []
    with pytest.raises(SnapshotError, match=f"there is no snapshot {NAMES[1]}"):
        promote_beside(snapshots, NAMES[1], tries, lambda: prune(trainer))
    assert len(tries) == 2
    assert snapshots.marks.live() == NAMES[0]


def test_a_snapshot_whose_deletion_was_broken_off_cannot_go_live_and_goes_next_time(
    s3_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshots = crowded(s3_store)

    def killed(*_: object) -> None:
        raise OSError("killed")

    with monkeypatch.context() as broken:
        broken.setattr(Bucket, "delete_folder", killed)
        with pytest.raises(SnapshotError, match="killed"):
            prune(snapshots)
    assert NAMES[1] in snapshots.versions()
    with pytest.raises(SnapshotError, match=f"there is no snapshot {NAMES[1]} any more"):
        promote(snapshots, NAMES[1])
    prune(snapshots)
    assert NAMES[1] not in snapshots.versions()
    assert snapshots.marks.live() == NAMES[0]


def test_of_two_candidates_at_once_one_goes_live_and_the_other_sees_it(s3_store: str) -> None:
    snapshots = filled(s3_store, NAMES[0])
    for name in NAMES[1:3]:
        snapshots.write(snapshot(name))
    together = threading.Barrier(2)

    def candidate(name: str) -> bool:
        own = Snapshots(s3_store)
        together.wait()
        try:
            put_live(own, name, instead_of=NAMES[0])
        except LiveChanged:
            return False
        return True

    going = {name: begun(candidate, name) for name in NAMES[1:3]}
    went = [name for name, ended in going.items() if ended.result(PATIENCE)]
    assert len(went) == 1
    assert snapshots.marks.live() == went[0]


def test_an_operator_who_promotes_at_the_same_time_as_another_does_it_again(s3_store: str) -> None:
    snapshots, other = filled(s3_store, *NAMES[:3]), Snapshots(s3_store)
    tries: list[str] = []
    promote_beside(snapshots, NAMES[0], tries, lambda: roll_back(other))
    assert len(tries) == 2
    assert snapshots.marks.live() == NAMES[0]
    assert snapshots.marks.now().is_withdrawn(NAMES[2])  # what the other did is not undone


def test_an_answer_that_is_lost_on_its_way_is_no_change_by_another(
    s3_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshots = filled(s3_store, *NAMES[:2])
    put, lost = obstore.put, [NAMES[1]]

    def twice(*arguments: Any, **how: Any) -> object:
        """As the library does it, when the answer to the first try does not come."""
        made = put(*arguments, **how)
        if "mode" in how and lost:
            lost.pop()
            return put(*arguments, **how)
        return made

    monkeypatch.setattr(obstore, "put", twice)
    put_live(snapshots, NAMES[0], instead_of=NAMES[1])
    assert not lost
    assert snapshots.marks.live() == NAMES[0]


def test_the_server_checks_the_conditions(s3_store: str) -> None:
    """What all the others rest on."""
    storage = opened(s3_store)
    assert storage.claim("x", b"1", None)
    first = storage.look("x", 10)
    assert first
    assert not storage.claim("x", b"2", None)
    assert storage.claim("x", b"3", first.state)
    assert not storage.claim("x", b"4", first.state)
    storage.delete("x")
    assert not storage.claim("x", b"5", first.state)
    assert storage.look("x", 10) is None
    with pytest.raises(PreconditionError):
        obstore.put(storage._small, "x", b"6", mode={"e_tag": '"0"'})  # type: ignore[attr-defined]


def test_a_server_that_ignores_conditions_is_refused(
    s3_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = obstore.put

    def without_condition(*arguments: Any, mode: object = None, **how: Any) -> object:
        return put(*arguments, **how)

    monkeypatch.setattr(obstore, "put", without_condition)
    with pytest.raises(SettingsError, match="ignores the condition If-None-Match"):
        Lease(opened(s3_store)).take()


def test_a_lease_that_another_takes_in_the_same_moment_is_not_taken(
    s3_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = Lease(opened(s3_store)), Lease(opened(s3_store))
    claim, came = Bucket.claim, [second]

    def late(storage: Bucket, name: str, content: bytes, was: object) -> bool:
        if came:
            assert came.pop().take()
        return claim(storage, name, content, was)  # type: ignore[arg-type]

    monkeypatch.setattr(Bucket, "claim", late)
    assert not first.take()
    assert not first.held
    second.confirm()
    second.release()


def test_a_lease_is_taken_over_when_it_is_no_longer_renewed(
    s3_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1_000.0
    monkeypatch.setattr(lease, "time", SimpleNamespace(monotonic=lambda: now))
    first, second = Lease(opened(s3_store)), Lease(opened(s3_store))
    assert first.take()
    for _ in range(3):
        assert first._renew()
        assert not second.take()
        now += 0.9 * lease.EXPIRES
        assert not second.take()
    now += 0.2 * lease.EXPIRES
    assert second.take()
    assert not first._renew()
    with pytest.raises(LeaseLost):
        first.confirm()
    first.release()
    second.confirm()
    second.release()


def test_a_store_that_does_not_answer_makes_no_model_count_as_damaged(
    s3_store: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    live = LiveModel(filled(s3_store, *NAMES[:2]), logging.getLogger("trainer"))

    def away(*_: object) -> File:
        raise StoreTrouble("the server does not answer")

    with monkeypatch.context() as broken:
        broken.setattr(Bucket, "file", away)
        for _ in range(2):
            with pytest.raises(StoreAway):
                live.read()
    assert live.version() == NAMES[1]
    read = live.read()
    assert read
    assert read.manifest.version == NAMES[1]
    assert [" cannot be read (" in line for line in caplog.messages] == [True, False]
    assert " can be read again (" in caplog.messages[1]


def test_an_erasure_in_a_store_that_does_not_answer_is_not_taken_for_done(
    s3_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(s3_store, NAMES[0])
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    away = Snapshots(s3_store)
    with pytest.raises(StoreAway, match="does not answer"):
        erase(away, {digest("a"): 8})
    with pytest.raises(StoreAway, match="does not answer"):
        away.holding("a")


def test_models_that_were_copied_from_a_folder_are_used(s3_store: str, tmp_path: Path) -> None:
    filled(tmp_path, *NAMES[:2])
    storage = opened(s3_store)
    for path in tmp_path.rglob("*"):
        if path.is_file():
            storage.write(str(path.relative_to(tmp_path)), path.read_bytes())
    snapshots = Snapshots(s3_store)
    assert snapshots.versions() == NAMES[:2]
    assert snapshots.marks.live() == NAMES[1]
    promote(snapshots, NAMES[0])
    assert snapshots.marks.live() == NAMES[0]


def test_a_large_file_goes_up_in_parts(s3_store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.lifecycle.bucket.PART", 5 * 1024 * 1024)
    storage, content = opened(s3_store), bytes(range(256)) * 50_000
    storage.write("large", content)
    assert storage.file("large").content == content


WRONG: dict[str, tuple[Callable[[str], str], dict[str, str], str]] = {
    "no such bucket": (
        lambda uri: "s3://no-such-bucket/models",
        {},
        "make the bucket, or set MODEL_STORE",
    ),
    "http": (lambda uri: uri, {"AWS_ALLOW_HTTP": "false"}, "set AWS_ALLOW_HTTP=true"),
    "no bucket": (lambda uri: "s3://", {}, "must stand a bucket"),
    "a slash too few": (lambda uri: "s3:/bucket", {}, "write a path, or s3://"),
    "an address": (lambda uri: uri, {"AWS_ENDPOINT_URL": "host:9"}, "must begin with http://"),
    "another kind": (lambda uri: "ftp://x/y", {}, "write a path, or s3://, gs:// or az://"),
}


@pytest.mark.parametrize("fault", WRONG)
def test_a_place_that_cannot_be_used_is_refused_in_words(
    s3_store: str, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, settings, said = WRONG[fault]
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    uri = place(s3_store)
    with pytest.raises(SettingsError, match=f"is refused: .*{said}") as refused:
        Snapshots(uri).check()
    assert str(refused.value).startswith(("MODEL_STORE=", "AWS_ENDPOINT_URL="))


def test_a_secret_in_the_place_is_not_shown() -> None:
    with pytest.raises(SettingsError, match="MODEL_STORE='s3://<hidden>@b/models' is refused"):
        Snapshots("s3://KEY:SECRET@b/models")


def test_the_rights_that_the_documentation_lists_are_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with s3_server(tmp_path) as server:
        identities = Identities(server)
        uri = f"s3://{identities.bucket}/edges"  # the place that `rights` names
        writer = identities.key("writer", rights(identities.bucket))
        reader = identities.key("reader", rights(identities.bucket, "s3:GetObject"))
        identities.ask_for_keys()
        use(monkeypatch, writer)
        snapshots = crowded(uri)
        held = Lease(snapshots.storage)
        assert held.take()
        prune(snapshots)
        promote(snapshots, snapshots.versions()[-1])
        assert erase(snapshots, {digest("a"): 8})
        assert roll_back(snapshots)[1] == NAMES[0]
        held.release()

        use(monkeypatch, reader)
        read = Snapshots(uri)
        read.check()
        assert read.marks.live() == NAMES[0]
        assert read.read(NAMES[0])
        with pytest.raises(StoreAway, match="AccessDenied"):
            promote(read, NAMES[0])


def test_without_credentials_one_is_told_to_set_them(
    s3_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:1")  # not that of this machine
    with pytest.raises(SettingsError, match="no credentials were found; set AWS_ACCESS_KEY_ID"):
        Snapshots(s3_store).check()


@pytest.mark.parametrize(
    ("code", "status", "said"),
    [
        ("InvalidAccessKeyId", 403, "to a key that the object store knows"),
        ("SignatureDoesNotMatch", 403, "to a key that the object store knows"),
        ("AccessDenied", 403, "lacks a right to this place"),
        ("PermanentRedirect", 301, "set AWS_REGION"),
    ],
)
def test_what_the_server_refuses_is_told_with_what_mends_it(
    s3_store: str, code: str, status: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with answering(status, f"<Error><Code>{code}</Code></Error>".encode()) as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        with pytest.raises(SettingsError, match=f"MODEL_STORE={s3_store} is refused: .*{said}"):
            Snapshots(s3_store).check()


def test_a_server_that_is_overloaded_is_waited_for(
    s3_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with answering(503, b"<Error><Code>SlowDown</Code></Error>") as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        said = f"{address} answers SlowDown"
        with pytest.raises(SnapshotError, match=said):
            Snapshots(s3_store).check()


def test_a_server_that_does_not_answer_is_no_wrong_setting(
    s3_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(SnapshotError, match=r"http://127\.0\.0\.1:1 does not answer"):
        Snapshots(s3_store).check()


def crowded(uri: str) -> Snapshots:
    """A store whose oldest snapshot is live; two more have to go, as there are so many newer."""
    snapshots = filled(uri, NAMES[0])
    for name in NAMES[1 : 3 + NEWEST]:
        snapshots.write(snapshot(name, rejected="it is worse"))
    return snapshots
