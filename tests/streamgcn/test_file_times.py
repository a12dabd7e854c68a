"""The times in files: units, forms of dates, what is missing and what is wrong."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Literal

import pandas as pd
import pytest

from streamgcn.files.source import FileError
from tests.interactions import NOW, events, written

EXPECTED = 1_790_000_000_000  # 2026-09-21T14:13:20Z


def with_times(folder: Path, *texts: str) -> str:
    rows = "".join(f'u{n},i{n},"{text}"\n' for n, text in enumerate(texts))
    return written(folder, "a.csv", f"user_id,item_id,timestamp\n{rows}")


@pytest.mark.parametrize(
    "text",
    [
        "1790000000", "1790000000.0", "1.79e9", "1790000000000", "1790000000000000",
        "1790000000000000000", " 1790000000 ", "2026-09-21T14:13:20Z", "2026-09-21T14:13:20",
        "2026-09-21 14:13:20", "2026-09-21 14:13:20 UTC", "2026-09-21T16:13:20+02:00",
        "2026-09-21 16:13:20 +0200", "2026-09-21 14:13:20.000000000", "20260921T141320Z",
        "20260921141320", "2026/9/21 14:13:20", "9/21/2026 14:13:20", "9/21/2026 2:13:20 PM",
        "21.09.2026 14:13:20", "21-09-2026 14:13:20",
    ],
)  # fmt: skip
def test_a_time_is_the_same_in_every_form(tmp_path: Path, text: str) -> None:
    assert events(with_times(tmp_path, text))[1] == [EXPECTED]


@pytest.mark.parametrize(
    "text",
    [
        "Mon Sep 21 14:13:20 +0000 2026", "Mon Sep 21 07:13:20 -0700 2026",
        "Mon, 21 Sep 2026 14:13:20 GMT", "21-Sep-2026 14:13:20", "September 21, 2026 2:13:20 PM",
    ],
)  # fmt: skip
def test_a_date_with_the_name_of_the_month_is_read_without_an_option(
    tmp_path: Path, text: str
) -> None:
    assert events(with_times(tmp_path, text))[1] == [EXPECTED]


def test_each_value_has_its_own_unit_and_dates_may_stand_among_numbers(tmp_path: Path) -> None:
    _, times, notes = events(
        with_times(tmp_path, "1790000000", "1790000000000", "2026-09-21T14:13:20Z", "1790000000")
    )
    assert times == [EXPECTED] * 4
    assert "in seconds (2) and in milliseconds (1) and as dates (1)" in notes[0]


def test_a_compact_date_is_a_day(tmp_path: Path) -> None:
    days = [dt.datetime(2026, 9, day, tzinfo=dt.UTC).timestamp() * 1000 for day in (20, 21)]
    assert events(with_times(tmp_path, "20260920", "20260921"))[1] == days
    frame = pd.DataFrame({"user_id": ["u", "u"], "item_id": ["i", "j"]})
    frame["timestamp"] = [20260920, 20260921]
    frame.to_parquet(tmp_path / "a.parquet")
    assert events(str(tmp_path / "a.parquet"))[1] == days


def test_the_whole_column_tells_whether_the_day_or_the_month_is_first(tmp_path: Path) -> None:
    def days(*texts: str) -> list[str]:
        times = events(with_times(tmp_path, *texts))[1]
        return [dt.datetime.fromtimestamp(ms / 1000, dt.UTC).strftime("%m-%d") for ms in times]

    ambiguous = ["1/2/2025"] * 30_000  # more than is read at a time
    assert days("12/1/2025 8:26", "12/13/2025 18:28") == ["12-01", "12-13"]
    assert days("1/12/2025", "13/12/2025") == ["12-01", "12-13"]
    assert days(*ambiguous, "1/31/2025")[::30_000] == ["01-02", "01-31"]
    with pytest.raises(FileError, match=r"1/2/2025 do not tell .* --timestamp-format, as in"):
        days(*ambiguous)


def test_a_form_that_is_given_is_the_only_one(tmp_path: Path) -> None:
    file = with_times(tmp_path, "2/1/25 08h", "3/1/25 08h")
    expected = [dt.datetime(2025, 1, day, 8, tzinfo=dt.UTC).timestamp() * 1000 for day in (2, 3)]
    assert events(file, timestamp_format="%d/%m/%y %Hh")[1] == expected
    with pytest.raises(FileError, match=r"2 of 2 .* the time 2/1/25 08h is not of the form %H"):
        events(file, timestamp_format="%H")


def test_an_empty_time_is_that_of_now_and_said_with_a_count(tmp_path: Path) -> None:
    _, times, notes = events(with_times(tmp_path, "2026-11-01T10:00:00Z", "", ""))
    assert times == [1_793_527_200_000, NOW, NOW]
    assert notes[1] == "2 rows have no time and get the time of now."


def test_events_are_given_back_oldest_first_and_stable(tmp_path: Path) -> None:
    file = with_times(tmp_path, "1790000300", "1790000100", "1790000100", "1790000200")
    assert [row[0] for row in events(file)[0]] == ["u1", "u2", "u3", "u0"]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "America/New_York"])
def test_timestamps_of_parquet_are_read_in_their_unit(
    tmp_path: Path, unit: Literal["s", "ms", "us", "ns"], zone: str | None
) -> None:
    moments = pd.DatetimeIndex([pd.Timestamp(EXPECTED, unit="ms", tz="UTC"), pd.NaT]).as_unit(unit)
    column = moments.tz_convert(zone) if zone else moments.tz_localize(None)
    frame = pd.DataFrame({"user_id": ["u", "v"], "item_id": ["i", "j"], "timestamp": column})
    frame.to_parquet(tmp_path / "a.parquet")
    _, times, notes = events(str(tmp_path / "a.parquet"))
    assert times == [EXPECTED, NOW]
    assert ("without a zone, taken for UTC" in notes[0]) == (zone is None)


@pytest.mark.parametrize("time", ["1790000000", 1790000000, 1790000000.0, "1790000000000"])
def test_a_time_in_json_may_be_a_number_or_a_string_of_digits(
    tmp_path: Path, time: str | float
) -> None:
    line = json.dumps({"user_id": "u", "item_id": "i", "timestamp": time})
    assert events(written(tmp_path, "a.jsonl", line))[1] == [EXPECTED]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("someday", r"the time someday cannot be told; give its form with --timestamp-format"),
        ("31 Apr 2026", r"the time 31 Apr 2026 cannot be told"),
        ("Foo 3 2026", r"the time Foo 3 2026 cannot be told"),
        ("0", r"the time is 0"),
        ("-5", r"the time is -5"),
        ("nan", r"the time nan cannot be told"),
        ("99999999", r"the time is 99999999"),
        ("20261301", r"the time is 20261301"),
        ("20260920123", r"the time is 20260920123"),
        ("2099-01-01", r"the time 2099-01-01 is before 1990 or more than a day ahead"),
        ("1969-12-31T23:59:59Z", r"the time 1969-12-31T23:59:59Z is before 1990"),
        ("2026-09-21T14:13:20 PST", r"the time 2026-09-21T14:13:20 PST cannot be told"),
        ("9" * 400, r"the time is '9+\.\.\.', which is no time"),
    ],
)
def test_a_time_that_is_none_is_refused_with_the_line_and_the_value(
    tmp_path: Path, text: str, reason: str
) -> None:
    file = with_times(tmp_path, "1790000000", text)
    with pytest.raises(FileError, match=rf"a.csv line 3: {reason}"):
        events(file)
    assert events(file, skip_invalid=True)[1] == [EXPECTED]
