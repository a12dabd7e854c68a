import pandas as pd
import pytest

from consumer.event.errors import EventError
from tests.trainer.test_graph import edges
from trainer.graph.frame import from_frame


def test_a_data_frame_becomes_a_graph_whose_edges_are_the_newest_states() -> None:
    frame = pd.DataFrame(
        {
            "user_id": ["u1", "u1", "u2"],
            "item_id": [1, 1, 2],
            "interaction": [5.0, 1.0, 3.0],
            "timestamp": [1_790_000_300, 1_790_000_100, 1_790_000_200],
            "colour": ["red", None, "blue"],
        }
    )
    assert edges(from_frame(frame)) == {("u1", "1"): 5.0, ("u2", "2"): 3.0}
    without = frame.drop(columns="timestamp")
    assert edges(from_frame(without)) == {("u1", "1"): 1.0, ("u2", "2"): 3.0}
    assert edges(from_frame(frame.astype({"user_id": "category"}))) == edges(from_frame(frame))


def test_a_forget_takes_what_came_before_it_of_its_user_alone() -> None:
    frame = pd.DataFrame(
        {
            "user_id": ["u1", "u2", "u1", "u1", "u3"],
            "item_id": ["a", "a", None, "b", None],
            "type": ["view", "view", "forget", "view", "forget"],
        }
    )
    assert edges(from_frame(frame)) == {("u1", "b"): 1.0, ("u2", "a"): 1.0}


def test_a_wrong_row_or_column_of_a_data_frame_is_named() -> None:
    frame = pd.DataFrame({"user_id": ["u", None], "item_id": ["i", "j"]})
    with pytest.raises(EventError, match="1 of 2 rows are no events; row 1: user_id is missing"):
        from_frame(frame)
    with pytest.raises(EventError, match="column item_id is missing"):
        from_frame(frame[["user_id"]])
    with pytest.raises(EventError, match="column user_id is of type double"):
        from_frame(pd.DataFrame({"user_id": [1.0, None], "item_id": ["i", "j"]}))
