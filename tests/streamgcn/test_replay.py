"""A replay of small logs, of which it is known what a good list is at each moment."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving.settings import ServingSettings
from streamgcn.replay import plot as plotting
from streamgcn.replay.figures import Figures, Tally, rank
from streamgcn.replay.learner import Learner
from streamgcn.replay.run import WAYS, Replay
from streamgcn.replay.stream import Stream, spans
from tests.graphs import Row, table
from trainer.lifecycle.manifest import Manifest, Snapshot
from trainer.model.hyperparameters import Hyperparameters
from trainer.model.progress import Progress

AFTER_1990 = 1_600_000_000_000  # epoch milliseconds
RING = 60  # items
TRANSITIONS = Hyperparameters(neighbors_weight=0.0, low_pass_weight=0.0, learned_weight=0.0)


def walks(users: int, steps: int, per_round: int = 40) -> list[Row]:
    """Users in rounds, each of whom takes some items of a ring one after another."""
    rng = np.random.default_rng(5)
    rows: list[Row] = []
    for begin in range(0, users, per_round):
        starts = rng.integers(0, RING, per_round)
        for step in range(steps):
            for user, start in enumerate(starts, begin):
                at = AFTER_1990 + 1_000 * len(rows)
                rows.append((f"u{user}", f"i{(start + step) % RING}", 1.0, at))
    return rows


def replayed(rows: list[Row], begin: int, every: int, together: int = 100) -> Figures:
    stream = Stream(table(rows))
    run = Replay(stream, ServingSettings.load(), TRANSITIONS, begin, every, together)
    return run.run(lambda _: None)


def ndcg(group: Figures, way: str) -> float:
    found: float = group[way]["ndcg@20"]
    return found


def test_on_a_ring_refresh_follows_each_step_and_the_batch_list_does_not() -> None:
    result = replayed(walks(160, 8), begin=640, every=320)
    everyone, new = result["all_users"], result["new_users"]
    assert everyone["events"] == 640
    assert new["events"] == 640  # each round of users comes after a training
    assert ndcg(new, "refresh_and_retrains") > 0.8  # all but each user's first event, nearly
    assert ndcg(new, "retrains_alone") < 0.5  # they read what is popular
    assert ndcg(new, "refresh_alone") > 0.8
    assert ndcg(everyone, "refresh_and_retrains") > ndcg(everyone, "popularity")
    assert [training["before_event"] for training in result["trainings"]] == [640, 960]


def test_retrains_alone_leave_a_known_users_list_as_the_last_training_made_it() -> None:
    rows = walks(40, 20)
    result = replayed(rows, begin=400, every=400)
    known = result["known_users"]
    assert known["events"] == 400
    # The list of the training has the next items in their order, so one that the user comes to
    # later stands first once the ones before are taken; the last ones are too far away.
    assert ndcg(known, "refresh_and_retrains") >= ndcg(known, "retrains_alone") > 0
    assert result["trainings"][0]["edges"] == 400


def test_lists_that_are_made_together_are_those_made_one_at_a_time() -> None:
    rows = walks(80, 8)
    assert replayed(rows, 320, 160, together=1) == replayed(rows, 320, 160, together=100)


def test_two_replays_of_one_log_give_the_same_json() -> None:
    first, second = (json.dumps(replayed(walks(80, 6), 240, 120)) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("rejected", [1, 2])
def test_until_the_gate_passes_a_model_everybody_reads_the_popular_list(
    monkeypatch: pytest.MonkeyPatch, rejected: int
) -> None:
    train = Learner.train
    trainings: list[Manifest] = []

    def judged(learner: Learner, progress: Progress) -> tuple[Manifest, Snapshot | None]:
        manifest, live = train(learner, progress)
        trainings.append(manifest)
        return manifest, None if len(trainings) <= rejected else live

    monkeypatch.setattr(Learner, "train", judged)
    result = replayed(walks(160, 8), begin=640, every=320)
    everyone = result["all_users"]
    assert everyone["events"] == 640
    if rejected == 2:
        assert ndcg(everyone, "refresh_and_retrains") == ndcg(everyone, "popularity")
    else:
        assert ndcg(everyone, "refresh_alone") > ndcg(everyone, "popularity")


def test_where_nobody_has_two_items_yet_everybody_reads_the_popular_list() -> None:
    steps = walks(80, 6, per_round=80)  # all users' first steps, then all second ones, ...
    result = replayed(steps, begin=80, every=200)
    nothing, learned = result["trainings"]
    assert "none of the 80 users has two items" in nothing["rejected"]
    assert learned["rejected"] == ""
    first = [window for window in result["over_time"] if window["until"] <= 280]
    assert first
    for window in first:
        assert ndcg(window, "refresh_and_retrains") == ndcg(window, "popularity")
        assert ndcg(window, "refresh_alone") == ndcg(window, "popularity")
        assert not window["new_users"]["events"]
    last = result["over_time"][-1]
    assert ndcg(last, "refresh_and_retrains") > ndcg(last, "popularity")


def test_repeated_and_disliked_events_and_removals_are_learned_but_not_counted() -> None:
    rows = walks(80, 6)
    at = AFTER_1990 + 10**9
    more: list[Row] = [
        ("u0", "i0", 1.0, at, "view"), ("u0", "i0", 1.0, at, "view"), ("u0", "i0", 1.0, at, "view"),
        ("u0", "i0", 1.0, at, "remove"), ("u0", "i0", 1.0, at, "view"),
        ("u1", "never seen", -1.0, at, "view"), ("u2", "never seen", 1.0, at, "view"),
    ]  # fmt: skip
    had = any(row[:2] == ("u0", "i0") for row in rows)
    result = replayed([*rows, *more], begin=480, every=1_000)
    assert result["left_out"] == {"repeated": 2 + had, "not_liked": 1, "removals": 1}
    assert result["all_users"]["events"] == 7 - 4 - had
    assert result["of_new_items"] == 0  # u1 has touched it


def test_the_place_in_a_list_passes_over_what_the_user_has() -> None:
    items = [f"i{n}" for n in range(30)]
    assert rank(items, "i0", set()) == 0
    assert rank(items, "i5", {"i0", "i3", "i9"}) == 3
    assert rank(items, "i19", set()) == 19
    assert rank(items, "i20", set()) == 20  # one too far
    assert rank(items, "i20", {"i1"}) == 19
    assert rank(items, "i21", {"i1"}) == 20
    assert rank(items, "elsewhere", set()) == 20
    assert rank([], "i0", set()) == 20


def test_figures_are_the_ones_worked_out_by_hand() -> None:
    tally = Tally(("a", "b"))
    tally.note(10, True, {"a": 0, "b": 20})
    tally.note(11, False, {"a": 2, "b": 20})
    tally.note(49, False, {"a": 20, "b": 1})
    groups = tally.by_group()
    assert groups["all_users"]["a"] == {"hit_rate@20": 0.66667, "ndcg@20": 0.5}
    assert groups["all_users"]["b"] == {"hit_rate@20": 0.33333, "ndcg@20": 0.21031}
    assert groups["known_users"]["a"] == {"hit_rate@20": 0.5, "ndcg@20": 0.25}
    assert groups["new_users"]["events"] == 1
    windows = tally.over_time(10, 50)
    assert len(windows) == 40
    assert [window["until"] for window in windows] == list(range(11, 51))
    assert windows[0]["new_users"]["a"]["ndcg@20"] == 1.0
    assert windows[1]["new_users"] == {"events": 0}
    assert windows[2] == {"until": 13, "events": 0, "new_users": {"events": 0}}


def test_no_block_goes_across_a_training() -> None:
    assert list(spans(0, 25, 10, {12, 13})) == [(0, 10), (10, 12), (12, 13), (13, 23), (23, 25)]
    assert list(spans(0, 20, 10, set())) == [(0, 10), (10, 20)]


def drawn() -> Figures:
    tally, rng = Tally(WAYS), np.random.default_rng(0)
    for event in range(400):
        tally.note(event, event % 3 == 0, {way: int(rng.integers(0, 30)) for way in WAYS})
    return {"over_time": tally.over_time(0, 400), "trainings": [{"before_event": 0}]}


def test_no_line_of_the_plot_goes_out_of_the_picture() -> None:
    pytest.importorskip("matplotlib", reason="the extra `plot` is not installed")
    tally = Tally(WAYS)
    for event in range(400):
        known = event % 4 > 0
        tally.note(event, not known, dict.fromkeys(WAYS, 20 if known else 1))
    result = {"over_time": tally.over_time(0, 400), "trainings": [{"before_event": 0}]}
    for axes in plotting.drawn(result).axes:
        assert axes.get_ylim()[0] == 0
        lines = [np.asarray(line.get_ydata(), np.float64) for line in axes.lines[: len(WAYS)]]
        assert axes.get_ylim()[1] > np.max(lines)


def test_the_plot_is_a_png_of_a_few_kilobytes(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the extra `plot` is not installed")
    file = tmp_path / "replay.png"
    plotting.check_plot(file)
    plotting.plot(drawn(), file)
    assert file.read_bytes().startswith(b"\x89PNG")
    assert file.stat().st_size < 100_000


def test_a_line_is_the_mean_of_its_windows_by_their_events() -> None:
    way: dict[str, Any] = {"a": {"ndcg@20": 1.0}}
    windows = [{"events": 1, **way}, {"events": 0}, {"events": 3, "a": {"ndcg@20": 0.0}}]
    assert plotting.smoothed(windows, "a") == [1.0, 1.0, 0.25]


def test_a_plot_that_cannot_be_made_is_refused_before_the_replay_with_the_fix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, fix in (("x.jpg", "PNG"), ("none/x.png", "no folder")):
        with pytest.raises(plotting.PlotError, match=fix):
            plotting.check_plot(tmp_path / name)
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(plotting.PlotError, match=r"pip install 'streamgcn\[plot\]'"):
        plotting.check_plot(tmp_path / "x.png")
