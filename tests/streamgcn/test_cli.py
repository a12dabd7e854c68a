import json
import re
import subprocess
from pathlib import Path

import msgspec
import pytest

from process.settings import variable
from process.text import visible
from serving.redis.contract import Recommendations
from serving.redis.store import Store
from serving.settings import ServingSettings
from streamgcn.cli.settings_help import settings_help
from streamgcn.demo import DemoFailed, check
from streamgcn.up.up import Up
from tests.commands import run, without_settings
from tests.graphs import blocks, pairs
from tests.hostile import HOSTILE, is_safe
from tests.rooms import Rooms
from tests.services import DATA, ROOT, wait_for

COMMANDS = [
    "up", "demo", "consumer", "trainer", "serving", "publish", "recommend", "status", "evaluate",
    "replay",
]  # fmt: skip


def streamgcn(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return run(arguments, without_settings() | {"COLUMNS": "200"} | settings)


def test_help_names_every_command_and_each_has_its_own() -> None:
    shown = streamgcn("--help").stdout
    for command in COMMANDS:
        assert re.search(rf"\b{command}\b", shown)
    for command in ("publish", "evaluate"):
        assert "--user-column" in streamgcn(command, "--help").stdout
    assert "STREAMGCN_COMMIT_SECONDS (1.0)" in streamgcn("consumer", "--help").stdout


def test_each_setting_is_in_the_help_of_a_process_that_uses_the_setting() -> None:
    helps = [streamgcn(room, "--help").stdout for room in ("consumer", "trainer", "serving")]
    for field in ServingSettings.model_fields:
        assert any(variable(ServingSettings, field) in shown for shown in helps), field
    for name in ("MODEL_FILE", "EDGE_WEIGHT", "TYPE_WEIGHTS", "HALF_LIFE_DAYS", "RETENTION_DAYS"):
        assert f"STREAMGCN_{name}" in helps[1]
    with pytest.raises(ValueError, match="no setting is named layers"):
        settings_help("layers")


def test_help_of_up_and_the_readme_list_every_setting() -> None:
    shown, readme = streamgcn("up", "--help").stdout, (ROOT / "README.md").read_text()
    for name, field in ServingSettings.model_fields.items():
        variable = str(field.validation_alias or name.upper())
        assert variable in shown
        assert f"`{variable}`" in readme


@pytest.mark.parametrize("command", ["up", "consumer", "trainer", "serving", "status"])
def test_a_wrong_setting_ends_every_command_at_once_with_code_2(command: str) -> None:
    ended = streamgcn(command, STREAMGCN_TOP_K="many")
    assert ended.returncode == 2
    assert "STREAMGCN_TOP_K='many' is refused: Input should be a valid integer" in ended.stderr


@pytest.mark.parametrize("command", ["up", "consumer", "trainer", "serving", "status"])
def test_a_place_that_no_edge_store_can_be_in_is_refused_before_anything_is_waited_for(
    command: str,
) -> None:
    ended = streamgcn(command, EDGE_STORE="s3:/bucket/edges", KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1")
    assert ended.returncode == 2
    assert "EDGE_STORE='s3:/bucket/edges' is refused" in ended.stderr


def test_recommend_shows_the_users_list_or_the_popular_one(redis_url: str, tmp_path: Path) -> None:
    settings = {"REDIS_URL": redis_url, "REDIS_PREFIX": tmp_path.name}
    store = Store(redis_url, tmp_path.name)
    nothing = streamgcn("recommend", "u1", **settings)
    assert nothing.returncode == 1
    assert "no list for u1" in nothing.stderr
    store.put_popular(
        msgspec.json.encode(Recommendations(["hit"], [3.0], [], "v1", "popular", 1, 2))
    )
    fallen_back = streamgcn("recommend", "u1", **settings)
    assert "hit" in fallen_back.stdout
    assert "There is no list for u1; this is the popular one." in fallen_back.stderr
    items = [f"i{n}" for n in range(20)]
    value = Recommendations(items, [0.5] * 20, ["own"] * 20, "v1", "live", 1, 2)
    store.put_users(["u1"], [msgspec.json.encode(value)])
    store.close()
    shown = streamgcn("recommend", "u1", "-n", "3", **settings)
    assert re.findall(r"\bi\d+", shown.stdout) == ["i0", "i1", "i2"]
    assert "own" in shown.stdout
    assert shown.stderr == ""


def test_recommend_leaves_out_what_is_excluded_from_the_popular_list_too(
    redis_url: str, tmp_path: Path
) -> None:
    settings = {"REDIS_URL": redis_url, "REDIS_PREFIX": tmp_path.name}
    store = Store(redis_url, tmp_path.name)
    store.put_popular(
        msgspec.json.encode(
            Recommendations(["i2", "i1", "i9"], [3.0, 2.0, 1.0], [], "v", "popular", 1, 2)
        )
    )
    value = Recommendations(["i1", "i2", "i3"], [3.0, 2.0, 1.0], ["o"] * 3, "v", "live", 1, 2)
    store.put_users(["u1"], [msgspec.json.encode(value)])
    store.close()
    shown = streamgcn("recommend", "u1", "-n", "1", "--exclude", "i1,i3", **settings)
    assert re.findall(r"\bi\d+", shown.stdout) == ["i2"]
    fallen_back = streamgcn("recommend", "u1", "--exclude", "i1,i2,i3", **settings)
    assert re.findall(r"\bi\d+", fallen_back.stdout) == ["i9"]
    assert "Nothing of the list of u1 is left; this is the popular one." in fallen_back.stderr


def test_no_id_moves_the_cursor_colours_the_terminal_or_is_read_as_markup(
    redis_url: str, tmp_path: Path
) -> None:
    settings = {"REDIS_URL": redis_url, "REDIS_PREFIX": tmp_path.name}
    store = Store(redis_url, tmp_path.name)
    value = Recommendations(HOSTILE, [0.5] * len(HOSTILE), HOSTILE, "v\x1b[1m", "live", 1, 2)
    user = "[/b]\x1b[31m\x9b0m"
    store.put_users([user], [msgspec.json.encode(value)])
    store.close()
    shown = streamgcn("recommend", user, "-n", "100", COLUMNS="900", **settings)
    assert shown.returncode == 0, shown.stderr
    lines = shown.stdout.splitlines()
    assert all(map(is_safe, lines))
    assert "[/b]\\x1b[31m\\x9b0m: live v\\x1b[1m" in lines[0]
    rows = [re.split(" *│ *", line)[1:-1] for line in lines if line.startswith("│")]
    assert rows == [[visible(item).strip(), "0.5000", visible(item).strip()] for item in HOSTILE]
    missing = streamgcn("recommend", "no\x1b]0;t\x07", **settings)
    assert missing.stderr.startswith("There is no list for no\\x1b]0;t\\x07")


@pytest.mark.parametrize("user", ["-5", "-bn3", "--x=3"])
def test_an_id_that_begins_with_a_dash_is_an_id_as_any_other(
    user: str, redis_url: str, tmp_path: Path
) -> None:
    settings = {"REDIS_URL": redis_url, "REDIS_PREFIX": tmp_path.name}
    store = Store(redis_url, tmp_path.name)
    value = Recommendations(["i1", "i2"], [0.5] * 2, ["o"] * 2, "v", "live", 1, 2)
    store.put_users([user], [msgspec.json.encode(value)])
    store.close()
    for arguments, items in (
        ([user], ["i1", "i2"]),
        (["--", user], ["i1", "i2"]),
        (["-n", "1", user], ["i1"]),
        ([user, "-n1"], ["i1"]),
    ):
        shown = streamgcn("recommend", *arguments, **settings)
        assert shown.returncode == 0, shown.stderr
        assert re.findall(r"\bi\d", shown.stdout) == items


@pytest.mark.parametrize("command", ["recommend", "forget"])
def test_an_id_that_is_the_name_of_an_option_is_asked_for_behind_two_dashes(command: str) -> None:
    option = {"recommend": "-n", "forget": "--verify"}[command]
    ended = streamgcn(command, option)
    assert ended.returncode == 2
    assert f"{command} -- {option}" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    misspelt = streamgcn(command, "u1", "--verfy")
    assert misspelt.returncode == 2
    assert "No such option: --verfy" in misspelt.stderr


def test_an_argument_or_a_setting_that_is_no_utf8_is_one_line_and_code_2() -> None:
    wrong = b"u\xff\x1b[31m".decode(errors="surrogateescape")
    tried = [
        streamgcn("forget", wrong),
        streamgcn("publish", wrong),
        streamgcn("recommend", "u1", REDIS_PREFIX=wrong),
        streamgcn("status", EDGE_STORE=wrong),
    ]
    for ended in tried:
        assert ended.returncode == 2, ended.stderr
        assert ended.stderr.startswith("streamgcn: ")
        assert len(ended.stderr.splitlines()) == 1
        assert is_safe(ended.stderr.strip())


@pytest.mark.parametrize("user", ["", "u" * 257, "ë" * 129])
@pytest.mark.parametrize("command", ["recommend", "forget"])
def test_an_id_that_no_event_can_have_is_refused(command: str, user: str) -> None:
    ended = streamgcn(command, user)
    assert ended.returncode == 2
    assert "an id has 1 to 256 bytes" in ended.stderr


def test_a_redis_that_is_away_is_one_line_and_code_1() -> None:
    ended = streamgcn("recommend", "u1", REDIS_URL="redis://127.0.0.1:1/0")
    assert ended.returncode == 1
    assert ended.stderr.startswith("streamgcn: ")
    assert len(ended.stderr.splitlines()) == 1


def test_evaluate_prints_json_of_a_ranking_that_finds_the_planted_blocks(tmp_path: Path) -> None:
    edges = pairs(blocks())
    train, test = tmp_path / "train.csv", tmp_path / "test.csv"
    own = {user: {row[1] for row in edges if row[0] == user} for user, *_ in edges}
    rest = [(u, f"{u[0]}-{i}") for u in own for i in range(12) if f"{u[0]}-{i}" not in own[u]]
    for path, rows in ((train, edges), (test, rest)):
        path.write_text("user_id,item_id\n" + "".join(f"{row[0]},{row[1]}\n" for row in rows))
    ended = streamgcn("evaluate", "--train", str(train), "--test", str(test))
    figures = json.loads(ended.stdout)
    assert figures["recall@20"] > 0.99
    assert figures["ndcg@20"] > 0.99
    assert (figures["train_edges"], figures["test_edges"]) == (len(edges), len(rest))


def filters_alone(folder: Path) -> dict[str, str]:
    """Settings of a model that takes a second to train."""
    file = folder / "model.toml"
    file.write_text("learned_weight = 0\nlow_pass_weight = 0\n")
    return {"STREAMGCN_MODEL_FILE": str(file)}


def ring(path: Path, users: int = 60, steps: int = 7, timed: bool = True) -> Path:
    """Users who walk some steps round a ring of twelve items."""
    rows = (
        f"u{user},i{(user + step) % 12}" + (f",{1_700_000_000 + 60 * step}" if timed else "")
        for step in range(steps)
        for user in range(users)
    )
    names = "user_id,item_id" + (",timestamp" if timed else "")
    path.write_text("\n".join([names, *rows]) + "\n")
    return path


def test_of_each_user_the_last_interaction_is_measured_at_the_lengths_that_are_asked_for(
    tmp_path: Path,
) -> None:
    file = ring(tmp_path / "ring.csv")
    ended = streamgcn(
        "evaluate",
        "--train",
        str(file),
        "--hold-out",
        "last",
        "--at",
        "5,1",
        **filters_alone(tmp_path),
    )
    figures = json.loads(ended.stdout)
    assert figures["protocol"] == {
        "measured_on": "each user's last interaction",
        "chosen_on": "each user's interaction before the last",
        "ranked": "all items that the user has no train edge to",
        "at": [1, 5],
    }
    assert (figures["train_edges"], figures["test_edges"]) == (360, 60)
    assert figures["hit_rate@1"] == figures["recall@1"] == figures["ndcg@1"] == 1.0
    assert figures["hit_rate@5"] == figures["ndcg@5"] == 1.0  # the first one of five
    assert figures["popularity_hit_rate@1"] < 0.5
    assert figures["held_out"]["ndcg@20"] == 1.0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--hold-out", "last", "--test", "x.csv"), "--hold-out last is for a file without --test"),
        (("--at", "10,0"), "--at 10,0: give numbers from 1 to 1000, as in 10,20"),
        (("--at", "ten"), "--at ten: give numbers from 1 to 1000, as in 10,20"),
    ],
)
def test_a_protocol_that_cannot_be_is_refused_before_the_file_is_read(
    arguments: tuple[str, ...], said: str
) -> None:
    ended = streamgcn("evaluate", "--train", "none.csv", *arguments)
    assert ended.returncode == 2
    assert said in ended.stderr


def test_without_times_no_interaction_is_the_last_one(tmp_path: Path) -> None:
    file = ring(tmp_path / "ring.csv", timed=False)
    ended = streamgcn("evaluate", "--train", str(file), "--hold-out", "last")
    assert ended.returncode == 1
    assert "has no times by which one of a user's interactions is the last" in ended.stderr


def test_replay_prints_json_of_all_four_ways_of_serving_and_writes_a_plot(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the extra `plot` is not installed")
    file, picture = ring(tmp_path / "ring.csv"), tmp_path / "ring.png"
    ended = streamgcn(
        "replay", str(file), "--from", "240", "--retrain-every", "120", "--plot", str(picture),
        **filters_alone(tmp_path),
    )  # fmt: skip
    result = json.loads(ended.stdout)
    assert (result["events"], result["from"], result["retrain_every"]) == (420, 240, 120)
    ways = {"refresh_and_retrains", "retrains_alone", "refresh_alone", "popularity"}
    everyone = result["all_users"]
    assert everyone["events"] == 180
    assert ways < everyone.keys()
    assert everyone["refresh_and_retrains"]["ndcg@20"] == 1.0  # the next item of the ring
    assert everyone["popularity"]["ndcg@20"] < 0.9
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_replay_trains_nine_times_and_not_once_more_for_the_last_event(tmp_path: Path) -> None:
    file = ring(tmp_path / "ring.csv", users=143)
    ended = streamgcn("replay", str(file), **filters_alone(tmp_path))
    result = json.loads(ended.stdout)
    assert (result["events"], result["from"], result["retrain_every"]) == (1_001, 101, 101)
    assert len(result["trainings"]) == 9


def test_a_file_that_is_too_small_for_a_replay_is_one_line(tmp_path: Path) -> None:
    ended = streamgcn("replay", str(ring(tmp_path / "ring.csv", users=5)))
    assert ended.returncode == 1
    assert "has 35 events, and 100 are learned before any is predicted" in ended.stderr


def test_gcn_with_mse_reports_its_rmse_beside_those_of_the_mean_and_of_biases(
    tmp_path: Path,
) -> None:
    whole = DATA / "ml-latest-small-ratings.csv"
    if not whole.exists():
        pytest.skip(f"{whole} is absent")
    ratings, small = tmp_path / "ratings.csv", tmp_path / "small.toml"
    ratings.write_text("".join(whole.read_text().splitlines(keepends=True)[:15_000]))
    small.write_text("dim = 16\n")
    ended = streamgcn(
        "evaluate", "--train", str(ratings), STREAMGCN_MODEL="gcn", STREAMGCN_LOSS="mse",
        STREAMGCN_EPOCHS="60", STREAMGCN_MODEL_FILE=str(small),
    )  # fmt: skip
    figures = json.loads(ended.stdout)
    assert figures["test_edges"] > 1_200
    assert figures["rmse"] < figures["rmse_mean"]
    assert 0.5 < figures["rmse_biases"] < figures["rmse_mean"]


def test_the_rmse_is_over_pairs_that_were_not_trained_on(tmp_path: Path) -> None:
    train, test, small = tmp_path / "train.csv", tmp_path / "test.csv", tmp_path / "small.toml"
    rows = [f"u{user},i{(user + n) % 12},3" for user in range(60) for n in range(6)]
    train.write_text("\n".join(["user_id,item_id,interaction", *rows]))
    test.write_text("\n".join(["user_id,item_id,interaction", "u0,i0,3", "u0,i8,1"]))
    small.write_text("dim = 4\n")
    ended = streamgcn(
        "evaluate", "--train", str(train), "--test", str(test), STREAMGCN_MODEL="gcn",
        STREAMGCN_LOSS="mse", STREAMGCN_EPOCHS="2", STREAMGCN_MODEL_FILE=str(small),
    )  # fmt: skip
    assert json.loads(ended.stdout)["rmse_mean"] == 2.0


def test_status_tells_who_runs_and_fails_while_somebody_does_not(
    apache: str, redis_url: str, tmp_path: Path
) -> None:
    with Rooms(tmp_path, apache, redis_url) as rooms:
        rooms.start("consumer")
        wait_for("the consumer", lambda: "Reading partitions" in rooms.log("consumer"))
        ended = rooms.run("status")
        assert "1 running, lag 0" in ended.stdout
        assert "not running" in ended.stdout
        assert ended.returncode == 1


def test_status_gives_the_lag_also_where_the_broker_does_not_tell_who_runs(
    embedded: str, redis_url: str, tmp_path: Path
) -> None:
    with Rooms(tmp_path, embedded, redis_url) as rooms:
        rooms.start("consumer")
        wait_for("the consumer", lambda: "Reading partitions" in rooms.log("consumer"))
        ended = rooms.run("status")
        assert "unknown number running, lag 0" in ended.stdout
        assert ended.returncode == 0


def test_up_prints_no_setting_that_it_was_given(tmp_path: Path) -> None:
    assert Up({"REDIS_URL": "redis://:hunter2@host"}, tmp_path).addresses() == {}


def test_the_demo_ends_by_itself_with_every_list_as_it_should_be() -> None:
    ended = streamgcn("demo")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.endswith(" The demo is done: every list is there and as it should be.\n")
    followed = re.findall(r"newcomer touches .*: list after \d+ ms, (\d+)% (\w+):", ended.stdout)
    assert [taste for _, taste in followed] == ["music"] * 3 + ["kitchen"] * 5
    music, turned, kitchen = (int(followed[at][0]) for at in (2, 3, 7))
    assert music > 60
    assert turned < kitchen > 60  # the list follows the newcomer's change of taste


def test_the_demo_fails_where_a_list_is_empty_or_holds_what_its_user_has() -> None:
    found = Recommendations(["music-1", "chess-2"], [1.0, 0.5], ["m", "m"], "v", "live", 1, 2)
    assert check("u", found, {"music-2"}, "music") == 0.5
    with pytest.raises(DemoFailed, match=r"holds \['music-1'\], which the user has"):
        check("u", found, {"music-1"}, "music")
    with pytest.raises(DemoFailed, match="is empty"):
        check("u", Recommendations([], [], [], "v", "live", 1, 2), set(), "music")
