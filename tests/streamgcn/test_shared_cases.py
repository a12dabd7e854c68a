"""The small inputs of ../shared/cases, each with the answer that the README there states."""

from __future__ import annotations

import datetime as dt
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from streamgcn.files.source import FileError
from tests.interactions import NOW, events
from tests.services import ROOT
from tests.streamgcn.test_cli import streamgcn

CASES = ROOT.parent / "shared" / "cases"
Expected = tuple[str, str, float, str, str | None]
I = "interaction"  # noqa: E741
RATED = ("user", "item", "rating", "timestamp")
RIGHT: dict[str, tuple[dict[str, Any], list[Expected]]] = {
    "trailing-comma.csv": (
        {},
        [("u1", "i1", 5, I, None), ("u2", "i2", 4, I, None), ("u3", "i1", 3, I, None)],
    ),
    "microseconds.csv": (
        {},
        [
            ("196", "242", 3, I, "2026-09-21T14:13:20.123"),
            ("186", "302", 3, I, "2026-09-21T14:13:21.123"),
        ],
    ),
    "empty-number-times.csv": (
        {},
        [("u1", "i1", 1, I, "2026-09-21T14:13:20"), ("u2", "i2", 1, I, None)],
    ),
    "one-cell-in-milliseconds.csv": (
        {},
        [
            ("u1", "i1", 1, I, "2026-09-21T14:13:20"),
            ("u2", "i2", 1, I, "2026-09-21T14:13:20"),
            ("u3", "i3", 1, I, "2026-09-21T14:15:00"),
        ],
    ),
    "compact-dates.csv": (
        {},
        [("u1", "i1", 1, I, "2026-09-20T00:00:00"), ("u2", "i2", 1, I, "2026-09-21T00:00:00")],
    ),
    "utc-suffix.csv": (
        {"item": "product_id", "timestamp": "event_time", "type": "event_type"},
        [
            ("51", "1001", 1, "view", "2026-11-01T00:00:00"),
            ("51", "1002", 1, "cart", "2026-11-01T00:00:04"),
        ],
    ),
    "month-first.csv": (
        {
            "user": "CustomerID", "item": "StockCode", "interaction": "Quantity",
            "timestamp": "InvoiceDate", "skip_invalid": True,
        },
        [("17850", "85123A", 6, I, "2025-12-01T08:26:00")],
    ),
    "na-ids.csv": (
        {},
        [("u1", "NA", 1, I, None), ("null", "i2", 1, I, None), ("nan", "i3", 1, I, None)],
    ),
    "blank-type.csv": ({}, [("u1", "i1", 1, "view", None), ("u2", "i2", 1, I, None)]),
    "semicolon-latin1.csv": (
        {},
        [("276725", "034545104X", 0, I, None), ("276726", "libro n\xba 5", 7, I, None)],
    ),
    "tabs-no-header.data": (
        {"names": RATED},
        [
            ("22", "377", 1, I, "1997-11-07T07:18:36"),
            ("196", "242", 3, I, "1997-12-04T15:55:49"),
            ("186", "302", 3, I, "1998-04-04T19:22:22"),
        ],
    ),
    "double-colon.dat": (
        {"names": RATED},
        [
            ("1", "1193", 5, I, "2000-12-31T22:12:40"),
            ("2", "914", 3, I, "2000-12-31T22:32:48"),
            ("1", "661", 3, I, "2000-12-31T22:35:09"),
        ],
    ),
    "ratings.csv.gz": (
        {},
        [("1", "31", 2.5, I, "2009-12-14T02:52:24"), ("1", "1029", 3, I, "2009-12-14T02:52:59")],
    ),
    "newest-first.csv": (
        {},
        [
            ("u1", "i1", 1, I, "2026-09-21T14:15:00"),
            ("u1", "i2", 4, I, "2026-09-21T14:16:40"),
            ("u1", "i1", 5, I, "2026-09-21T14:18:20"),
        ],
    ),
    "same-pair-twice.csv": (
        {},
        [
            ("u1", "i1", 1, "purchase", None), ("u1", "i1", 273, "play", None),
            ("u1", "i2", 1, "like", None), ("u1", "i2", 1, "remove", None),
        ],
    ),
    "rows-without-item.csv": ({"skip_invalid": True}, [("u1", "i1", 1, "view", None)]),
    "dash-ids.jsonl": ({}, [("-0Dx", "-b", 1, I, None), ("--help", "i2", 1, I, None)]),
    "times-as-strings.jsonl": ({}, [("u1", "i1", 1, I, "2026-09-21T14:13:20")]),
}  # fmt: skip


def case(name: str, folder: Path) -> str:
    if not (CASES / name).exists():
        pytest.skip(f"{CASES / name} is absent")
    return shutil.copy(str(CASES / name), str(folder))


@pytest.mark.parametrize("name", RIGHT)
def test_a_case_of_the_record_has_the_right_answer(name: str, tmp_path: Path) -> None:
    options, expected = RIGHT[name]
    rows, times, _ = events(case(name, tmp_path), **options)
    assert list(zip(rows, times, strict=True)) == [
        (row, NOW if time is None else round(utc(time).timestamp() * 1000))
        for *row_, time in expected
        for row in [tuple(row_)]
    ]


def test_an_empty_time_among_dates_is_that_of_publishing_said_with_a_count(tmp_path: Path) -> None:
    rows, times, notes = events(case("empty-times.csv", tmp_path))
    by_user = {row[0]: ms for row, ms in zip(rows, times, strict=True)}
    assert by_user == {"u1": utc("2026-11-20T10:00:00").timestamp() * 1000, "u2": NOW}
    assert notes[1] == "1 row has no time and gets the time of now."


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (
            "rows-without-item.csv",
            "2 of 3 .*line 2: item_id is missing; line 4: user_id is ",
        ),
        ("month-first.csv", "1 of 2 .*line 3: CustomerID is missing"),
        ("tabs-no-header.data", "there are 196, 242, 3, 881250949; .* --columns user,item"),
    ],
)
def test_a_case_that_is_to_be_refused_names_the_rows_or_the_options(
    name: str, reason: str, tmp_path: Path
) -> None:
    with pytest.raises(FileError, match=reason):
        events(case(name, tmp_path))


def test_evaluate_on_a_split_by_time_counts_new_users_and_serves_them_the_popular_list(
    tmp_path: Path,
) -> None:
    files = [case(f"split-by-time-{part}.csv", tmp_path) for part in ("train", "test")]
    figures = json.loads(streamgcn("evaluate", "--train", files[0], "--test", files[1]).stdout)
    assert (figures["test_edges"], figures["test_edges_in_train"]) == (12, 4)
    assert (figures["known_users"]["users"], figures["new_users"]["users"]) == (0, 8)
    assert figures["recall@20"] == figures["popularity_recall@20"] == 1.0
    assert figures["ndcg@20"] == figures["new_users"]["ndcg@20"]
    assert figures["ndcg@20"] >= figures["popularity_ndcg@20"]


def utc(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC)
