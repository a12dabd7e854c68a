"""`streamgcn backup` while all runs, and `streamgcn restore` onto an empty place."""

import errno
import json
import re
import shutil
from pathlib import Path

import pytest
from deltalake import DeltaTable

from consumer.edge import copy
from consumer.edge.store import EdgeStore
from consumer.edge.table import StoreError
from consumer.event.json import Event, encode
from consumer.kafka.publisher import Publisher
from process import atomic
from process.settings import SettingsError
from serving.redis.store import Store
from serving.settings import ServingSettings
from streamgcn import backup as backups
from streamgcn.backup import BackupError, backup, restore
from tests.graphs import append, blocks, pairs, store
from tests.rooms import Rooms, started
from tests.services import embedded_kafka, wait_for
from tests.trainer.test_snapshots import NAMES, filled
from trainer.lifecycle.snapshots import Snapshots

DRAFT = r"^\.(.+?)(\.\d+)?\.draft$"  # the name of what is not finished yet


def publish(rooms: Rooms, edges: list[tuple[str, str]]) -> None:
    publisher = Publisher(rooms.settings)
    for user, item in edges:
        event = Event(user, item, 1.0, 1_790_000_000_000, "view")
        publisher.send(rooms.settings.kafka_topic, encode(event), user.encode())
    publisher.flush()
    publisher.close()


def test_a_backup_of_running_processes_is_restored_and_goes_on_with_a_new_topic(
    embedded: str, redis_url: str, tmp_path: Path
) -> None:
    edges = [(str(user), str(item)) for user, item, *_ in pairs(blocks(users=20))]
    first, second, copied = tmp_path / "first", tmp_path / "second", tmp_path / "backup"
    first.mkdir()
    second.mkdir()
    settings = {"STREAMGCN_MIN_EDGES": "100", "STREAMGCN_EPOCHS": "10"}
    rooms = Rooms(first, embedded, redis_url, STREAMGCN_COMMIT_SECONDS="0.2", **settings)
    with started(rooms):
        wait_for("the topic", lambda: "Reading partitions" in rooms.log("consumer"))
        publish(rooms, edges)
        wait_for("a model", rooms.store.model)
        publish(rooms, edges)  # commits go on while the copy is made
        made = rooms.run("backup", str(copied))
        assert made.returncode == 0, made.stderr
        assert "the live model" in made.stdout
        assert rooms.run("backup", str(copied)).stderr.startswith(
            f"streamgcn: {copied} is not empty"
        )
    rows = DeltaTable(str(copied / "edges")).to_pandas()
    assert len(rows) >= len(edges)
    stored = EdgeStore(str(copied / "edges"), rooms.settings.kafka_topic)
    for partition in range(4):
        offsets = rows[rows["kafka_partition"] == partition]["kafka_offset"]
        assert sorted(offsets) == list(range(stored.next_offset(partition) or 0))

    with embedded_kafka(tmp_path) as broker:  # another one, whose topic is a new one
        names = {"KAFKA_TOPIC": rooms.settings.kafka_topic, "REDIS_PREFIX": "restored"}
        again = Rooms(second, broker.address, redis_url, **settings, **names)
        back = again.run("restore", str(copied))
        assert back.returncode == 0, back.stderr
        assert f"Restored {len(rows)} rows" in back.stdout
        with started(again):
            lists = Store(redis_url, "restored")
            wait_for("the lists of the restored model", lambda: lists.user("0-1"))
            publish(again, [("0-1", "new")])
            wait_for("the new event", lambda: again.rows() == len(rows) + 1)
            lists.close()
        said = [line for line in again.log("consumer").splitlines() if "created anew" in line]
        assert len(said) == 1
        assert "The stored events of the topic before stay" in said[0]


def test_restore_refuses_a_filled_place_another_topic_and_what_is_no_whole_backup(
    tmp_path: Path,
) -> None:
    rooms = Rooms(tmp_path, "localhost:1", "redis://localhost:1", KAFKA_TOPIC="t")
    store(tmp_path / "edges", [("u", "i")])
    filled(tmp_path / "models", *NAMES[:2])
    copied = tmp_path / "backup"
    assert rooms.run("backup", str(copied)).returncode == 0
    assert json.loads((copied / "backup.json").read_text())["models"] == [NAMES[1], NAMES[0]]
    assert "is not empty" in rooms.run("restore", str(copied)).stderr
    (tmp_path / "other").mkdir()
    other = Rooms(tmp_path / "other", "localhost:1", "redis://localhost:1", KAFKA_TOPIC="x")
    assert "set KAFKA_TOPIC=t" in other.run("restore", str(copied)).stderr
    (copied / "backup.json").unlink()
    assert "is no whole backup" in other.run("restore", str(copied)).stderr
    assert list((tmp_path / "other").iterdir()) == []


def test_a_version_whose_files_are_deleted_meanwhile_is_given_up_for_a_newer_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edges = store(tmp_path / "edges", [("u", "i")])
    for number in range(1, 15):  # past a checkpoint
        append(edges, [("u", f"i{number}")], number)
    copyfileobj = shutil.copyfileobj

    def deleted(*_: object) -> None:
        monkeypatch.setattr(shutil, "copyfileobj", copyfileobj)
        append(edges, [("u", "late")], 15)
        raise FileNotFoundError

    monkeypatch.setattr(shutil, "copyfileobj", deleted)
    assert copy.copy(str(tmp_path / "edges"), tmp_path / "copy") == 16
    assert EdgeStore(str(tmp_path / "copy"), "t").next_offset(0) == 16


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    rooms = Rooms(tmp_path, "localhost:1", "redis://localhost:1", KAFKA_TOPIC="t")
    (tmp_path / "loop").symlink_to("elsewhere/that/is/missing")
    refused = rooms.run("backup", str(tmp_path / "loop"))
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"streamgcn: cannot write the backup {tmp_path}/loop")
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize("made", [False, True])
def test_a_backup_that_failed_leaves_nothing_and_can_be_repeated(
    tmp_path: Path, made: bool
) -> None:
    settings = settings_of(tmp_path)
    filled(tmp_path / "models", *NAMES[:2])
    copied = tmp_path / "backup"
    if made:
        copied.mkdir()
    with pytest.raises(StoreError):  # there is no edge store
        backup(settings, copied)
    assert [path.name for path in tmp_path.glob("backup*/*")] == []
    assert copied.exists() == made
    store(tmp_path / "edges", [("u", "i")])
    assert backup(settings, copied).models == [NAMES[1], NAMES[0]]


def test_a_backup_that_failed_leaves_none_of_the_folders_that_it_made(tmp_path: Path) -> None:
    settings, copied = settings_of(tmp_path), tmp_path / "there" / "new" / "newer" / "backup"
    (tmp_path / "there").mkdir()
    with pytest.raises(StoreError):  # there is no edge store
        backup(settings, copied)
    assert list((tmp_path / "there").iterdir()) == []
    store(tmp_path / "edges", [("u", "i")])
    backup(settings, copied)
    assert (copied / "backup.json").exists()


def test_a_backup_folder_whose_name_looks_like_a_uri_is_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store(tmp_path / "edges", [("u", "i")])
    backup(settings_of(tmp_path), Path("file:/b"))
    again = settings_of(tmp_path / "again")
    assert restore(again, Path("file:/b")).rows == 1
    assert EdgeStore(again.edge_store, "t").count() == 1


def backed_up(folder: Path) -> ServingSettings:
    """A backup at folder/backup; returns the settings of an empty place to restore it to."""
    settings = settings_of(folder)
    store(folder / "edges", [("u", "i")])
    filled(folder / "models", *NAMES[:2])
    backup(settings, folder / "backup")
    return settings_of(folder / "again")


def test_a_restore_that_failed_leaves_nothing_and_can_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = backed_up(tmp_path)
    rename = Path.rename

    def full(path: Path, target: Path) -> Path:
        if target.name == "models":
            raise OSError(errno.ENOSPC, "the disk is full")
        return rename(path, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", full)
        with pytest.raises(BackupError, match="the disk is full"):
            restore(again, tmp_path / "backup")
    assert not (tmp_path / "again").exists()
    restore(again, tmp_path / "backup")
    assert Snapshots(again.model_store).marks.live() == NAMES[1]


def test_the_models_are_on_the_disk_before_the_backup_is_said_to_be_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(tmp_path)
    store(tmp_path / "edges", [("u", "i")])
    filled(tmp_path / "models", NAMES[0])
    synced: list[Path] = []
    sync, write = atomic.sync, atomic.write

    def noted(path: Path) -> None:
        # A draft is synced before it gets its name.
        synced.append(Path(*(re.sub(DRAFT, r"\1", part) for part in path.parts)))
        sync(path)

    def written(path: Path, content: bytes) -> None:
        if path.name == "backup.json":
            of_models = set((tmp_path / "backup" / "models" / NAMES[0]).rglob("*"))
            assert len(of_models) > 3
            assert of_models < set(synced)
        write(path, content)

    monkeypatch.setattr(atomic, "sync", noted)
    monkeypatch.setattr(atomic, "write", written)
    backup(settings, tmp_path / "backup")
    assert (tmp_path / "backup" / "backup.json").exists()


def settings_of(folder: Path) -> ServingSettings:
    places = {"edge_store": str(folder / "edges"), "model_store": str(folder / "models")}
    return ServingSettings.model_validate(places | {"kafka_topic": "t"})


def test_a_backup_that_was_killed_is_named_and_what_to_do_with_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, copied = settings_of(tmp_path), tmp_path / "backup"
    store(tmp_path / "edges", [("u", "i")])

    def killed(uri: str, target: Path) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(copy, "copy", killed)
        patched.setattr("streamgcn.backup._delete", lambda _: None)  # nothing runs any more
        with pytest.raises(KeyboardInterrupt):
            backup(settings, copied)
    with pytest.raises(BackupError, match=f"{copied} has a backup that did not end.*delete the"):
        backup(settings, copied)
    shutil.rmtree(copied)
    backup(settings, copied)
    assert sorted(path.name for path in copied.iterdir()) == ["backup.json", "edges", "models"]


@pytest.mark.parametrize("killed_before", [False, True])
def test_a_backup_is_restored_to_where_a_disk_is_mounted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_before: bool
) -> None:
    again = backed_up(tmp_path)
    mounts = [tmp_path / "again" / "edges", tmp_path / "again" / "models"]
    for place in mounts:
        place.mkdir(parents=True)
    if killed_before:
        (mounts[0] / ".restoring" / "half").mkdir(parents=True)
    rmdir = Path.rmdir

    def busy(path: Path) -> None:
        if path in mounts:
            raise OSError(errno.EBUSY, "Device or resource busy")
        rmdir(path)

    monkeypatch.setattr(Path, "rmdir", busy)
    monkeypatch.setattr(Path, "is_mount", lambda path: path in mounts)
    restore(again, tmp_path / "backup")
    assert EdgeStore(again.edge_store, again.kafka_topic).count() == 1
    assert Snapshots(again.model_store).marks.live() == NAMES[1]
    assert not list(tmp_path.glob("again/**/.*restoring*"))


@pytest.mark.parametrize("full", [False, True])
def test_a_new_disk_with_nothing_but_the_folder_of_its_repairs_is_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full: bool
) -> None:
    copied = tmp_path / "backup"
    again = settings_of(tmp_path / "again")
    mounts = [tmp_path / "again" / "edges", tmp_path / "again" / "models"]
    for place in (copied, *mounts):
        (place / "lost+found" / "found").mkdir(parents=True)
    monkeypatch.setattr(Path, "is_mount", lambda path: path in mounts)
    backed_up(tmp_path)
    assert {path.name for path in copied.iterdir()} == {
        "backup.json", "edges", "lost+found", "models",
    }  # fmt: skip
    if full:
        sync = atomic.sync

        def refused(path: Path) -> None:
            if path == mounts[1]:
                raise OSError(errno.ENOSPC, "the disk is full")
            sync(path)

        monkeypatch.setattr(atomic, "sync", refused)
        with pytest.raises(BackupError, match="the disk is full"):
            restore(again, copied)
        assert [path.name for place in mounts for path in place.iterdir()] == 2 * ["lost+found"]
    else:
        restore(again, copied)
        assert EdgeStore(again.edge_store, again.kafka_topic).count() == 1
        assert Snapshots(again.model_store).versions() == NAMES[:2]
    assert all((place / "lost+found" / "found").is_dir() for place in mounts)


@pytest.mark.parametrize("ended", [False, True])
def test_a_backup_leaves_the_folder_alone_where_another_backup_was_quicker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ended: bool
) -> None:
    settings, copied = settings_of(tmp_path), tmp_path / "backup"
    store(tmp_path / "edges", [("u", "i")])
    look = backups._refuse_filled

    def then_another(folder: Path, *rest: str) -> None:
        look(folder, *rest)
        monkeypatch.setattr(backups, "_refuse_filled", look)
        backup(settings, folder)
        if not ended:
            (folder / "unfinished").touch()

    monkeypatch.setattr(backups, "_refuse_filled", then_another)
    with pytest.raises(BackupError, match="is not empty" if ended else "is being made"):
        backup(settings, copied)
    assert EdgeStore(str(copied / "edges"), "t").count() == 1
    assert (copied / "backup.json").exists()
    assert (copied / "unfinished").exists() != ended


@pytest.mark.parametrize("name", ["a[b", "a]b", "a^b", "a|b", "a\\b", "a%20b", "a\nb"])
def test_a_backup_to_a_path_that_the_delta_library_confuses_is_refused(
    tmp_path: Path, name: str
) -> None:
    settings = settings_of(tmp_path)
    store(tmp_path / "edges", [("u", "i")])
    with pytest.raises(SettingsError, match=r"the backup folder .* is refused: the path"):
        backup(settings, tmp_path / name)
    assert not (tmp_path / name).exists()
