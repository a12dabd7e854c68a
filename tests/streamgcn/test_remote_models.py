"""The commands, the page and the start of the processes with MODEL_STORE in an object store."""

import threading
import time
from pathlib import Path

import pytest

from consumer.edge.store import EdgeStore
from serving.settings import ServingSettings
from streamgcn.backup import BackupError, backup, restore
from streamgcn.page import sources
from streamgcn.page.sources import Latest, Source
from tests.commands import run, without_settings
from tests.consumer.test_object_store_refused import answering
from tests.graphs import store
from tests.object_store import gate
from tests.s3 import S3
from tests.services import wait_for
from tests.trainer.test_snapshots import NAMES, filled, snapshot
from trainer.lifecycle.bucket import Bucket
from trainer.lifecycle.lease import Lease
from trainer.lifecycle.promotion import promote, roll_back
from trainer.lifecycle.running_training import RunningTraining, doing
from trainer.lifecycle.snapshots import Snapshots
from trainer.lifecycle.storage import StoreTrouble, Write

AT_ONCE = 15.0  # seconds in which a process says that it cannot start


@pytest.fixture
def model_store(s3: S3, monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    return f"s3://{s3.bucket()}/models"


def environment(model_store: str, **settings: str) -> dict[str, str]:
    return without_settings() | {"MODEL_STORE": model_store, "COLUMNS": "200"} | settings


def test_models_are_listed_shown_promoted_and_rolled_back(model_store: str) -> None:
    snapshots = filled(model_store, *NAMES[:2])
    snapshots.write(snapshot(NAMES[2], rejected="it is worse"))
    env = environment(model_store)
    listed = run(["models", "list"], env)
    assert listed.returncode == 0, listed.stderr
    assert f"Models in {model_store}" in listed.stdout
    assert f"* {NAMES[1]}" in listed.stdout
    assert "rejected: it is worse" in " ".join(listed.stdout.split())
    shown = run(["models", "show", NAMES[0]], env)
    assert "live since, or last" in shown.stdout
    promoted = run(["models", "promote", NAMES[2]], env)
    assert promoted.stdout == f"{NAMES[2]} is live.\n"
    assert "The gate had rejected" in promoted.stderr
    back = run(["models", "rollback"], env)
    assert back.stdout == f"{NAMES[1]} is live; {NAMES[2]} was live before.\n"
    assert snapshots.marks.live() == NAMES[1]
    unknown = run(["models", "promote", NAMES[7]], env)
    assert unknown.returncode == 1
    assert f"there is no snapshot {NAMES[7]} in {model_store}" in unknown.stderr


def test_the_page_and_status_show_the_models_and_the_training_that_runs(model_store: str) -> None:
    storage = filled(model_store, *NAMES[:2]).storage
    lease, current = Lease(storage), RunningTraining(storage)
    assert lease.take()
    with current.of(edges=7):
        current.note("choosing weights", 3, 30)
        current._write()
        found = sources._models(model_store)
        assert doing(storage).endswith("choosing weights, step 3 of 30")
    assert [(each["version"], each["live"]) for each in found["versions"]] == [
        (NAMES[1], True), (NAMES[0], False)
    ]  # fmt: skip
    assert found["training"]["step"] == 3
    lease.release()
    assert doing(storage) == "not running"


def test_the_page_says_that_the_models_cannot_be_read(
    s3: S3, model_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with gate(s3) as way:
        monkeypatch.setenv("AWS_ENDPOINT_URL", way.address)
        filled(model_store, NAMES[0])
        stop = threading.Event()
        latest = Latest([Source("models", lambda: sources._models(model_store), 0.1)], stop)
        wait_for("the models", lambda: latest.value("models", "versions"))
        way.shut()
        trouble = f"{way.address} does not answer"
        wait_for("the trouble", lambda: trouble in latest.troubles.get("models", ""))
        way.open()
        wait_for("the models again", lambda: latest.value("models", "versions"))
        stop.set()


def test_a_command_says_that_the_server_is_away_and_does_not_take_that_for_no_models(
    model_store: str,
) -> None:
    env = environment(model_store, AWS_ENDPOINT_URL="http://127.0.0.1:1")
    listed = run(["models", "list"], env)
    assert listed.returncode == 1
    assert listed.stdout == ""
    assert listed.stderr.startswith(f"streamgcn: cannot use MODEL_STORE {model_store}: ")
    assert "does not answer" in listed.stderr


@pytest.mark.parametrize("room", ["trainer", "serving"])
@pytest.mark.parametrize("fault", ["bucket", "key", "credentials"])
def test_a_process_does_not_start_where_waiting_does_not_help(
    model_store: str, room: str, fault: str, tmp_path: Path
) -> None:
    env = environment(model_store, EDGE_STORE=str(tmp_path / "edges"))
    said = {
        "bucket": "make the bucket, or set MODEL_STORE",
        "key": "to a key that the object store knows",
        "credentials": "no credentials were found",
    }[fault]
    with answering(403, b"<Error><Code>InvalidAccessKeyId</Code></Error>") as refusing:
        if fault == "bucket":
            env["MODEL_STORE"] = "s3://no-such-bucket/models"
        elif fault == "key":
            env["AWS_ENDPOINT_URL"] = refusing
        else:
            env = {name: value for name, value in env.items() if "ACCESS_KEY" not in name}
            env["AWS_METADATA_ENDPOINT"] = "http://127.0.0.1:1"
        began = time.monotonic()
        ended = run([room], env)
    assert ended.returncode == 2, ended.stderr
    assert time.monotonic() - began < AT_ONCE
    [line] = [line for line in ended.stderr.splitlines() if "MODEL_STORE" in line]
    assert f"MODEL_STORE={env['MODEL_STORE']} is refused: " in line
    assert said in line


def test_models_are_backed_up_from_a_bucket_and_restored_to_another(
    model_store: str, s3: S3, tmp_path: Path
) -> None:
    rows = store(tmp_path / "edges", [("a", "x")])
    written = filled(model_store, *NAMES[:3])
    promote(written, NAMES[0])
    written.write(snapshot(NAMES[3], rejected="it is worse"))
    settings = {"KAFKA_TOPIC": "t", "EDGE_STORE": str(tmp_path / "edges")}
    made = run(["backup", str(tmp_path / "backup")], environment(model_store, **settings))
    assert made.returncode == 0, made.stderr

    again = f"s3://{s3.bucket()}/again"
    env = environment(again, KAFKA_TOPIC="t", EDGE_STORE=str(tmp_path / "other"))
    restored = run(["restore", str(tmp_path / "backup")], env)
    assert restored.returncode == 0, restored.stderr
    snapshots = Snapshots(again)
    assert snapshots.versions() == NAMES[:3]
    assert snapshots.marks.live() == NAMES[0]
    assert snapshots.read(NAMES[1]).manifest == written.read(NAMES[1]).manifest
    assert roll_back(snapshots) == (NAMES[0], NAMES[2])
    assert EdgeStore(str(tmp_path / "other"), "t").count() == rows.count()

    (tmp_path / "other").rename(tmp_path / "aside")
    refused = run(["restore", str(tmp_path / "backup")], env)
    assert refused.returncode == 1
    assert f"{again} has models; a backup is restored to an empty place only" in refused.stderr
    assert not (tmp_path / "other").exists()


def test_a_restore_that_fails_leaves_no_model(
    model_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(tmp_path / "edges", [("a", "x")])
    filled(tmp_path / "models", *NAMES[:2])
    settings = ServingSettings(
        kafka_topic="t", edge_store=str(tmp_path / "edges"), model_store=str(tmp_path / "models")
    )
    backup(settings, tmp_path / "backup")
    write = Bucket.write

    def refused(storage: Bucket, name: str, what: bytes | Write) -> None:
        if name.startswith(NAMES[0]):
            raise StoreTrouble("the server is away")
        write(storage, name, what)

    target = ServingSettings(
        kafka_topic="t", edge_store=str(tmp_path / "other"), model_store=model_store
    )
    with monkeypatch.context() as broken:
        broken.setattr(Bucket, "write", refused)
        with pytest.raises(BackupError, match="the server is away"):
            restore(target, tmp_path / "backup")
    assert Snapshots(model_store).storage.folders() == []
    assert not (tmp_path / "other").exists()
    restore(target, tmp_path / "backup")
    assert Snapshots(model_store).versions() == NAMES[:2]


def test_who_looks_for_a_forgotten_user_reads_remote_models(
    model_store: str, tmp_path: Path
) -> None:
    from streamgcn.forget import Search

    filled(model_store, *NAMES[:2])
    settings = ServingSettings(model_store=model_store, edge_store=str(tmp_path / "edges"))
    assert Search(settings, "a", {}).models().trace == f"{NAMES[0]}, {NAMES[1]}"
    assert Search(settings, "nobody", {}).models().trace == ""
