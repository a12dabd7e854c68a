import json
from pathlib import Path

import pandas as pd
import pytest

from consumer.event.json import Event
from streamgcn.files import Columns, FileError, events, read, rows

COLUMNS = Columns()


def test_csv_parquet_and_json_lines_give_the_same_events(tmp_path: Path) -> None:
    frame = pd.DataFrame({"user_id": ["1", "2"], "item_id": ["7", "8"], "interaction": [4.5, 1.0]})
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_parquet(tmp_path / "a.parquet")
    frame.to_json(tmp_path / "a.jsonl", orient="records", lines=True)
    expected = [Event("1", "7", 4.5, 99, "interaction"), Event("2", "8", 1.0, 99, "interaction")]
    for path in tmp_path.iterdir():
        assert list(events(read(path, COLUMNS), 99)) == expected


def test_ids_stay_as_they_are_written(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("user_id,item_id\n007,1.50\n")
    assert next(events(read(tmp_path / "a.csv", COLUMNS), 0))[:2] == ("007", "1.50")


@pytest.mark.parametrize("text", ["789652009", "789652009000", "1995-01-09T11:46:49Z"])
def test_timestamps_may_be_seconds_milliseconds_or_rfc_3339(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.csv").write_text(f"user_id,item_id,timestamp\nu,i,{text}\n")
    assert next(events(read(tmp_path / "a.csv", COLUMNS), 0)).timestamp == 789_652_009_000


def test_columns_may_have_other_names(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("who,what,stars\nu,i,3\n")
    frame = read(tmp_path / "a.csv", Columns(user="who", item="what", interaction="stars"))
    assert next(events(frame, 5)) == Event("u", "i", 3.0, 5, "interaction")


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("a.csv", "user,item_id\nu,i\n", "has no column 'user_id', only"),
        ("a.csv", "user_id,item_id\nu,\n", "has no item_id in row 1"),
        ("a.csv", "user_id,item_id,interaction\nu,i,good\n", "interaction 'good', which is not"),
        ("a.csv", "user_id,item_id,timestamp\nu,i,someday\n", "timestamp that cannot be read"),
        ("a.txt", "", "unknown kind"),
        ("a.parquet", "no parquet", "cannot be read"),
    ],
)
def test_a_wrong_file_is_refused_with_what_is_wrong(
    tmp_path: Path, name: str, text: str, reason: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(FileError, match=reason):
        read(tmp_path / name, COLUMNS)


def test_rows_are_what_the_graph_takes(tmp_path: Path) -> None:
    lines = [{"user_id": 1, "item_id": 2, "timestamp": 789652009, "type": "view"}]
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    table = rows(read(tmp_path / "a.jsonl", COLUMNS))
    assert table["user_id"].to_pylist() == ["1"]
    assert table["type"].to_pylist() == ["view"]
    assert table["timestamp"].to_pylist()[0].year == 1995
