"""Files that cannot be read: one line that names the file, the place and the fix."""

from __future__ import annotations

import gzip
import json
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamgcn.files import text
from streamgcn.files.load import load
from streamgcn.files.options import Options
from streamgcn.files.source import FileError
from tests.commands import STREAMGCN, run, without_settings
from tests.interactions import events, of, written
from tests.streamgcn.test_cli import streamgcn

GOOD = "user_id,item_id\nu,i\n"
CLOSED = ["sh", "-c", 'exec "$0" "$@" <&-', *STREAMGCN, "publish", "-"]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.csv", "", "a.csv is empty; give a file with rows"),
        ("a.csv", " \n\n", "a.csv is empty"),
        ("a.csv", b"\0\1\2user_id,item_id\n", "a.csv holds NUL bytes, so it is no text in utf-8"),
        ("a.csv", b"PK\3\4....", "a.csv is a zip archive or a spreadsheet; give its rows"),
        ("a.csv.gz", b"\x1f\x8b\x08\x00broken", "a.csv.gz cannot be read: "),
        ("a.csv.gz", gzip.compress(GOOD.encode() * 99_999)[:999], "a.csv.gz cannot be read: Trunc"),
        ("a.parquet", b"PAR1 broken", "a.parquet cannot be read as Parquet"),
        ("a.parquet", GOOD, "a.parquet is no Parquet file"),
        ("a.csv", "who,what\nu,i\n", "no column of users .* there are who, what; .* --user-column"),
        ("a.csv", "u,i\n", "If the file has no header, name all columns in order, as in --columns"),
        ("a.csv", "user_id,user_id,item_id\n", "a.csv has 2 columns named user_id; rename all but"),
        ("a.csv", "user_id,asin,isbn\n", "item could be in column asin or isbn; .* --item-column"),
        ("a.csv", "user_id,item_id,score,stars\n", "--interaction-column \\(''"),
        ("a.csv", "user_id,item_id\nu\n", "a.csv line 2: the number of fields is 1, but the"),
        ("a.csv", "user_id,item_id\nu,i,x\n", "line 2: the number of fields is 3"),
        ("a.csv", 'user_id,item_id\nu,"i\nv,j\n', "line 2: a quoted field, which goes on to"),
        ("a.csv", "user_id,item_id,rating\nu,i,good\n", "line 2: rating is good, which is no"),
        ("a.csv", "user_id,item_id,rating\nu,i,nan\n", "line 2: rating is nan, which is no number"),
        ("a.csv", "user_id,item_id,rating\nu,i,1e13\n", "line 2: rating is 1e\\+13"),
        ("a.csv", f"user_id,item_id\n{'u' * 257},i\n", "line 2: user_id is longer than 256 bytes"),
        ("a.csv", "user_id,item_id\n\x1b[31m\n", r"line 2: the number of fields is 1"),
        ("a\x1b[2J.csv", "", r"a\\x1b\[2J\.csv is empty"),
        ("a.jsonl", '{"user_id": 1, "item_id": 2}\n{"user', "1 of 2 .* line 2: it is no JSON"),
        ("a.jsonl", '{"user_id": 1.5, "item_id": 2}', "line 1: user_id is 1.5; an id must be"),
        ("a.jsonl", '{"user_id": true, "item_id": 2}', "line 1: user_id is true; an id must be"),
        ("a.jsonl", '{"user_id": 1e30, "item_id": 2}', "line 1: user_id is 1e\\+30; an id must"),
        ("a.json", '[{"user_id": 1, "item_id": 2}, {', "what follows object 1 is no JSON"),
        ("a.json", "[1, 2]", "no column of users .* there are none"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_refused_with_what_is_wrong(
    tmp_path: Path, name: str, content: str | bytes, reason: str
) -> None:
    file = written(tmp_path, name, content)
    with pytest.raises(FileError, match=reason):
        events(file)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"user": "User_Id"}, "no column User_Id, which --user-column names; there are user_id"),
        ({"interaction": "rating"}, "no column rating, which --interaction-column names"),
        ({"timestamp": "time"}, "no column time, which --timestamp-column names"),
        ({"type": "event"}, "no column event, which --type-column names"),
        ({"item": "user_id"}, "column user_id cannot be user and item"),
        ({"names": ("user", "item")}, "has a header: user_id, item_id. Leave out --columns"),
        ({"encoding": "klingon"}, "--encoding klingon is no encoding of text"),
        ({"encoding": "hex"}, "--encoding hex is no encoding of text"),
        ({"separator": ""}, "--separator must be one or more characters"),
        ({"separator": ";"}, "there are user_id,item_id; name it"),
        ({"timestamp_format": "%Q"}, "--timestamp-format %Q is no form of times"),
        ({"timestamp_format": "%Y%Y"}, "--timestamp-format %Y%Y is no form of times"),
    ],
)
def test_an_option_that_does_not_fit_the_file_is_refused(
    tmp_path: Path, options: dict[str, Any], reason: str
) -> None:
    with pytest.raises(FileError, match=reason):
        events(written(tmp_path, "a.csv", GOOD), **options)


def test_a_file_with_a_header_alone_has_no_events(tmp_path: Path) -> None:
    with load([written(tmp_path, "a.csv", "user_id,item_id\n")]) as loaded:
        loaded.refuse_wrong()
        assert list(loaded.blocks(0)) == []


def test_places_without_a_file_are_refused(tmp_path: Path) -> None:
    for name, reason in (
        (str(tmp_path), "is a folder; name the files, as in "),
        (str(tmp_path / "none.csv"), "none.csv cannot be read: No such file or directory"),
        (str(tmp_path / "*.csv"), "no file is named like .*\\*.csv"),
        (str(tmp_path / "a\0.csv"), r"a\\x00.csv cannot be read: "),
    ):
        with pytest.raises(FileError, match=reason):
            events(name)


@pytest.mark.parametrize("role", ["user_id", "interaction", "timestamp", "type"])
@pytest.mark.parametrize(
    "column",
    [pa.array([[1]]), pa.array([{"a": 1}]), pa.array([b"\xff"]), pa.array([1], pa.duration("s"))],
    ids=lambda column: str(column.type),
)
def test_a_column_of_a_type_that_cannot_be_right_is_refused(
    tmp_path: Path, role: str, column: pa.Array
) -> None:
    columns = {"user_id": pa.array(["u"]), "item_id": pa.array(["i"]), role: column}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    with pytest.raises(FileError, match=r"a\.parquet"):
        events(str(tmp_path / "a.parquet"))


def test_only_the_first_wrong_rows_are_named_and_all_are_counted(tmp_path: Path) -> None:
    file = written(tmp_path, "a.csv", "user_id,item_id\n" + "u,\n" * 1000 + "u,i\n")
    with pytest.raises(FileError) as refused:
        events(file)
    assert "1000 of 1001 rows are no events" in str(refused.value)
    assert "line 6: item_id is missing; ...); mend them" in str(refused.value)
    assert "line 7" not in str(refused.value)
    assert of(events(file, skip_invalid=True)[0]) == [("u", "i", 1.0)]
    with pytest.raises(FileError, match=r"1 of 1 rows is no event .* is it the right file"):
        events(written(tmp_path, "b.csv", "user_id,item_id\nu,\n"), skip_invalid=True)


def test_a_line_without_an_end_is_refused_before_it_fills_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text, "LONGEST", 4 * text.BLOCK)
    line = json.dumps({"user_id": "u", "item_id": "i", "x": "y" * text.BLOCK})
    whole = written(tmp_path, "a.jsonl", line)
    assert of(events(whole)[0]) == [("u", "i", 1.0)]
    with pytest.raises(FileError, match="has a line of more than 4194304 bytes"):
        events(written(tmp_path, "b.csv", GOOD + "x" * 6 * text.BLOCK))


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (
            b"user_id,item_id\nu,\n",
            "1 of 1 rows is no event (standard input line 2: item_id",
        ),
        (b"", "standard input is empty; give a file with rows"),
        (None, "standard input is closed; give a file, or rows there"),
    ],
)
def test_standard_input_is_read_and_checked_as_a_file(rows: bytes | None, reason: str) -> None:
    if rows is None:
        ended = subprocess.run(CLOSED, env=without_settings(), capture_output=True, text=True)
    else:
        ended = run(["publish", "-"], without_settings(), given=rows)
    assert ended.returncode == 1
    assert reason in ended.stderr
    assert "Traceback" not in ended.stderr


def test_an_error_is_one_line_and_code_1_also_in_the_shell(tmp_path: Path) -> None:
    file = written(tmp_path, "a.csv", "user_id,item_id\nu,\n")
    for arguments in (["publish", file], ["evaluate", "--train", file], ["publish", str(tmp_path)]):
        ended = streamgcn(*arguments)
        assert ended.returncode == 1
        assert ended.stderr.splitlines()[-1].startswith("streamgcn: ")
        assert "Traceback" not in ended.stderr


PIECES = st.lists(
    st.sampled_from(
        ["user_id", "item_id", "timestamp", "1790000000", "u", "i", ",", ";", "\t", "::", " ", '"',
         '""', "\n", "\r", "\0", "\xe9", "{", "}", "[", "]", ":", "\\", "'", "null", "1e999"]
    ),
    max_size=60,
)  # fmt: skip
BEGINNINGS = st.sampled_from(
    ["", "user_id,item_id,timestamp\n", "user_id\titem_id\n", '{"user_id":1,"item_id":2}\n',
     '[{"user_id":1,"item_id":2},']
)  # fmt: skip


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(BEGINNINGS, PIECES, st.sampled_from(["utf-8", "latin-1", "utf-16"]))
def test_no_file_is_answered_by_another_error(
    tmp_path: Path, beginning: str, pieces: list[str], encoding: str
) -> None:
    file = written(tmp_path, "a.txt", (beginning + "".join(pieces)).encode(encoding))
    with suppress(FileError), load([file], Options(skip_invalid=True)) as loaded:
        loaded.refuse_wrong()
        assert sum(map(len, loaded.blocks(0))) == len(loaded)
