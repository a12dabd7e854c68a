"""When the trainer trains: what makes a training due, how often, and after a failure."""

import pytest

from tests.graphs import Row, graph, table
from trainer.graph.interactions import InteractionGraph
from trainer.lifecycle.schedule import FIRST_RETRY, GROWN_REST, LAST_RETRY, REST, Schedule
from trainer.settings import TrainerSettings

SETTINGS = TrainerSettings(min_edges=10, retrain_edges=30, retrain_seconds=3_600)


def edges(n: int) -> list[Row]:
    return [(f"u{number % 7}", f"i{number}") for number in range(n)]


def trained(made: InteractionGraph, now: float = 0.0) -> Schedule:
    """A schedule after a training of this graph that took no time."""
    schedule = Schedule(SETTINGS)
    schedule.succeeded(made, now, now)
    return schedule


def test_the_first_training_is_due_at_the_fewest_edges() -> None:
    assert not Schedule(SETTINGS).due(graph(edges(9)), 0.0)
    assert Schedule(SETTINGS).due(graph(edges(10)), 0.0)


def test_a_training_is_due_when_the_edges_have_doubled_or_enough_are_new_or_gone() -> None:
    now = 10 * REST
    for before, after, due in (
        (10, 19, False), (10, 20, True), (35, 64, False), (35, 65, True), (60, 31, False),
        (60, 30, True),
    ):  # fmt: skip
        schedule = trained(graph(edges(before)))
        schedule.note(abs(after - before))
        assert schedule.due(graph(edges(after)), now) == due, (before, after)


def test_views_of_the_same_items_again_and_again_do_not_make_a_training_due() -> None:
    made = graph(edges(20))
    schedule, now = trained(made), 0.0
    for _ in range(300):
        now += 1.0
        made.extend(table(edges(20)[:7]))
        schedule.note(500)
        assert not schedule.due(made, now)
    assert schedule.due(made, SETTINGS.retrain_seconds)


def test_edges_that_go_and_come_again_do_not_make_a_training_due() -> None:
    made = graph(edges(60))
    schedule = trained(made)
    schedule.note(1_000)
    made.extend(table([("u0", "i0", 1.0, 0, "remove"), ("u0", "i0"), ("u0", "i7")]))
    assert not schedule.due(made, 10 * REST)


def test_a_graph_that_keeps_changing_is_not_trained_more_than_once_a_minute() -> None:
    made = graph(edges(20))
    schedule, trainings = trained(made), []
    for second in range(1, 200):
        gone = [
            (f"u{n % 7}", f"i{n}", 1.0, 0, "remove") for n in range(20 * second - 20, 20 * second)
        ]
        made.extend(table([*gone, *edges(20 * second + 20)[-20:]]))
        schedule.note(40)
        if schedule.due(made, float(second)):
            trainings.append(float(second))
            schedule.succeeded(made, second, second)
    assert trainings == [REST * n for n in range(1, 4)]


def test_a_bulk_load_is_trained_again_soon_each_time_it_has_doubled() -> None:
    schedule = trained(graph(edges(20)))
    schedule.note(20)
    assert not schedule.due(graph(edges(40)), GROWN_REST - 1)
    assert schedule.due(graph(edges(40)), GROWN_REST)


def test_a_training_rests_as_long_as_the_last_one_took() -> None:
    schedule = Schedule(SETTINGS)
    schedule.succeeded(graph(edges(20)), 0.0, 500.0)
    schedule.note(80)
    assert not schedule.due(graph(edges(100)), 999.0)
    assert schedule.due(graph(edges(100)), 1_000.0)


@pytest.mark.parametrize("trained_before", [False, True])
def test_a_training_that_failed_is_tried_again_by_itself_after_twice_as_long_each_time(
    trained_before: bool,
) -> None:
    made = graph(edges(20))
    schedule = trained(graph(edges(10))) if trained_before else Schedule(SETTINGS)
    now, waits = 5_000.0, []
    for _ in range(8):
        assert schedule.due(made, now)
        seconds = schedule.failed(now)
        assert not schedule.due(made, now + seconds - 1)
        waits.append(seconds)
        now += seconds
    assert waits == [60, 120, 240, 480, 960, 1_920, 3_600, 3_600]
    assert (waits[0], waits[-1]) == (FIRST_RETRY, LAST_RETRY)
    schedule.succeeded(made, now, now)
    assert not schedule.due(made, now + LAST_RETRY)
    assert schedule.failed(now) == FIRST_RETRY


def test_without_a_new_event_nothing_is_due_however_long_it_is() -> None:
    made = graph(edges(20))
    schedule = trained(made)
    assert not schedule.due(made, 1e9)
    schedule.note(1)
    assert schedule.due(made, 1e9)


def test_where_the_live_model_was_lost_a_training_is_due() -> None:
    made = graph(edges(20))
    schedule = trained(made)
    schedule.lost()
    assert schedule.due(made, REST)
