"""Files of interactions as people have them: forms, names of columns, ids, wrong rows."""

import gzip
import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from streamgcn.files.source import FileError
from tests.interactions import NOW, events, of, written


def test_csv_parquet_and_json_lines_give_the_same_events(tmp_path: Path) -> None:
    frame = pd.DataFrame({"user_id": ["1", "2"], "item_id": ["7", "8"], "interaction": [4.5, 1.0]})
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_parquet(tmp_path / "a.parquet")
    frame.to_json(tmp_path / "a.jsonl", orient="records", lines=True)
    frame.to_json(tmp_path / "a.json", orient="records")
    expected = [("1", "7", 4.5, "interaction"), ("2", "8", 1.0, "interaction")]
    for path in tmp_path.iterdir():
        assert events(str(path))[:2] == (expected, [NOW, NOW])


# Public data sets as they are downloaded: the text, the options to read it with, the first event.
PUBLIC: dict[str, tuple[str, dict[str, Any], tuple[str, str, float, str | None]]] = {
    "ml-100k/u.data": (
        "196\t242\t3\t881250949\n186\t302\t3\t891717742\n",
        {"names": ("user", "item", "rating", "timestamp")},
        ("196", "242", 3.0, "1997-12-04T15:55:49"),
    ),
    "ml-1m/ratings.dat": (
        "1::1193::5::978300760\n1::661::3::978302109\n",
        {"names": ("user", "item", "rating", "timestamp")},
        ("1", "1193", 5.0, "2000-12-31T22:12:40"),
    ),
    "ml-latest/ratings.csv": (
        "userId,movieId,rating,timestamp\n1,31,2.5,1260759144\n",
        {},
        ("1", "31", 2.5, "2009-12-14T02:52:24"),
    ),
    "BX-Book-Ratings.csv": (
        '"User-ID";"ISBN";"Book-Rating"\n"276725";"034545104X";"0"\n"1";"libro n\xba 5";"7"\n',
        {"encoding": "latin-1"},
        ("276725", "034545104X", 0.0, None),
    ),
    "lastfm/user_artists.dat": (
        "userID\tartistID\tweight\n2\t51\t13883\n2\t52\t11690\n",
        {},
        ("2", "51", 13883.0, None),
    ),
    "lastfm-1k.tsv": (
        'user_000001\t2009-05-04T23:08:57Z\tf1b1\tDeep Dish\t\t"Heroes\n',
        {"names": ("user", "timestamp", "item", "name", "track-id", "track-name")},
        ("user_000001", "f1b1", 1.0, "2009-05-04T23:08:57"),
    ),
    "amazon/ratings_Video_Games.csv": (
        "AB9S9279OZ3QO,0078764343,5.0,1373155200\n",
        {"names": ("user", "item", "rating", "timestamp")},
        ("AB9S9279OZ3QO", "0078764343", 5.0, "2013-07-07T00:00:00"),
    ),
    "amazon/reviews.json": (
        '{"reviewerID": "A2SU", "asin": "0700", "overall": 5.0, "reviewTime": "07 9, 2013", '
        '"unixReviewTime": 1373328000}\n',
        {},
        ("A2SU", "0700", 5.0, "2013-07-09T00:00:00"),
    ),
    "gowalla/checkins.txt": (
        "0\t2010-10-19T23:55:27Z\t30.2359\t-97.7951\t22847\n",
        {"names": ("user", "timestamp", "latitude", "longitude", "item")},
        ("0", "22847", 1.0, "2010-10-19T23:55:27"),
    ),
    "yelp/review.json": (
        '{"review_id": "r", "user_id": "-mh", "business_id": "b", "stars": 4.0, '
        '"date": "2016-03-09 00:00:00"}\n',
        {},
        ("-mh", "b", 4.0, "2016-03-09T00:00:00"),
    ),
    "steam-200k.csv": (
        "151603712,The Elder Scrolls V Skyrim,play,273.0,0\n",
        {"names": ("user", "item", "type", "interaction", "zero")},
        ("151603712", "The Elder Scrolls V Skyrim", 273.0, None),
    ),
    "retailrocket/events.csv": (
        "timestamp,visitorid,event,itemid,transactionid\n1433221332117,257597,view,355908,\n",
        {},
        ("257597", "355908", 1.0, "2015-06-02T05:02:12.117"),
    ),
    "online_retail.csv": (
        "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n"
        '536365,85123A,"HOLDER, WHITE",6,12/1/2010 8:26,2.55,17850.0,United Kingdom\n'
        "536370,22728,ALARM CLOCK,24,12/13/2010 8:45,3.75,12583.0,France\n",
        {},
        ("17850", "85123A", 6.0, "2010-12-01T08:26:00"),
    ),
    "netflix.txt": (
        "1488844,1,3,2005-09-06\n",
        {"names": ("user", "item", "rating", "date")},
        ("1488844", "1", 3.0, "2005-09-06T00:00:00"),
    ),
    "yoochoose-clicks.dat": (
        "1,2014-04-07T10:51:09.277Z,214536502,0\n",
        {"names": ("user", "timestamp", "item", "category")},
        ("1", "214536502", 1.0, "2014-04-07T10:51:09.277"),
    ),
    "dunnhumby.csv": (
        "household_key,BASKET_ID,DAY,PRODUCT_ID,QUANTITY\n2375,26984851472,1,1004906,1\n",
        {},
        ("2375", "1004906", 1.0, None),
    ),
    "foursquare.txt": (
        "470\t49bbd6c0f964a520f4531fe3\t-240\tTue Apr 03 18:00:09 +0000 2012\n",
        {
            "names": ("user", "venue", "offset", "time"),
            "timestamp_format": "%a %b %d %H:%M:%S %z %Y",
        },
        ("470", "49bbd6c0f964a520f4531fe3", 1.0, "2012-04-03T18:00:09"),
    ),
    "foursquare/dataset.csv": (
        "userId,venueId,venueCategory,timezoneOffset,utcTimestamp\n"
        "470,49bbd6,Arts & Crafts Store,-240,Tue Apr 03 18:00:09 +0000 2012\n",
        {},
        ("470", "49bbd6", 1.0, "2012-04-03T18:00:09"),
    ),
    "amazon/reviews_us.tsv": (
        "customer_id\tproduct_id\tproduct_title\tstar_rating\treview_date\n"
        '53096384\t1563890119\tThe Sandman "Preludes\t4\t1995-08-13\n',
        {},
        ("53096384", "1563890119", 4.0, "1995-08-13T00:00:00"),
    ),
    "diginetica/views.csv": (
        "sessionId;userId;itemId;timeframe;eventdate\n1;NA;81766;526309;2016-05-09\n",
        {},
        ("NA", "81766", 1.0, "2016-05-09T00:00:00"),
    ),
    "recbole/ml-100k.inter": (
        "user_id:token\titem_id:token\trating:float\ttimestamp:float\n196\t242\t3\t881250949\n",
        {},
        ("196", "242", 3.0, "1997-12-04T15:55:49"),
    ),
    "tianchi/user.csv": (
        "user_id,item_id,behavior_type,user_geohash,item_category,time\n"
        "10001082,285259775,1,97lk14c,4076,2014-12-08 18\n",
        {},
        ("10001082", "285259775", 1.0, "2014-12-08T18:00:00"),
    ),
    "kuairec.csv": (
        "user_id,video_id,play_duration,time,date,timestamp,watch_ratio\n"
        "0,3649,13838,2020-07-05 00:08:23.438,20200705,1593878903.438,1.27\n",
        {},
        ("0", "3649", 1.0, "2020-07-04T16:08:23.438"),
    ),
    "epinions.txt": ("  1  100  5\n  1  200  2\n", {"names": ("user", "item", "rating")},
        ("1", "100", 5.0, None),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_data_set_is_read_as_it_is_downloaded(tmp_path: Path, name: str) -> None:
    text, options, (user, item, interaction, time) = PUBLIC[name]
    content = text.encode("latin-1" if "\xba" in text else "utf-8")
    rows, times, _ = events(written(tmp_path, name.split("/")[-1], content), **options)
    headed = "names" not in options and not text.startswith("{")
    assert of(rows)[0] == (user, item, interaction)
    assert len(rows) == len(text.splitlines()) - headed
    moment = datetime.fromisoformat(time).replace(tzinfo=UTC).timestamp() * 1000 if time else NOW
    assert times[0] == moment


def test_what_is_read_from_where_is_said_in_one_line(tmp_path: Path) -> None:
    file = written(tmp_path, "a.CSV", PUBLIC["ml-latest/ratings.csv"][0])
    assert events(file)[2] == [
        f"{file}: users from userId, items from movieId, interactions from rating, times from "
        "timestamp in seconds, no types."
    ]
    file = written(tmp_path, "b.csv", "user_id;item_id;price\nM\xfcller;i;3\n".encode("latin-1"))
    assert events(file)[2] == [
        f"{file}: users from user_id, items from item_id, no interactions (each counts 1), no "
        "times (each is now), no types; read as latin-1; separated by semicolons; not used: price."
    ]


@pytest.mark.parametrize("separator", [",", "\t", ";", "|", "::", " ", "~"])
def test_the_separator_is_found_or_given(tmp_path: Path, separator: str) -> None:
    text = "\r\n".join(separator.join(row) for row in (["user_id", "item_id"], ["u", "i"]))
    options = {"separator": "~"} if separator == "~" else {}
    assert of(events(written(tmp_path, "a.txt", text), **options)[0]) == [("u", "i", 1.0)]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32", "latin-1", "cp1251"])
def test_the_encoding_is_found_or_given(tmp_path: Path, encoding: str) -> None:
    user = "\u0436" if encoding == "cp1251" else "\xe9"
    file = written(tmp_path, "a.csv", f"user_id,item_id\n{user},i\n".encode(encoding))
    options = {"encoding": encoding} if encoding == "cp1251" else {}
    assert of(events(file, **options)[0]) == [(user, "i", 1.0)]


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.ZstdCompressor().compress])
def test_a_compressed_file_is_read_whatever_its_name(
    tmp_path: Path, pack: Callable[[bytes], bytes]
) -> None:
    file = written(tmp_path, "a.bin", pack(b"user_id,item_id\nu,i\n"))
    assert of(events(file)[0]) == [("u", "i", 1.0)]


def test_several_files_and_patterns_are_one_stream_in_order(tmp_path: Path) -> None:
    for day in ("1", "2"):
        written(
            tmp_path, f"day-{day}.csv", f"user_id,item_id,timestamp\nu,i{day},{9 - int(day)}e8\n"
        )
    last = written(tmp_path, "b.jsonl", '{"user_id": "u", "item_id": "b"}')
    rows, _, notes = events(str(tmp_path / "day-*.csv"), last)
    assert [row[1] for row in rows] == ["i2", "i1", "b"]
    assert notes[0].startswith(f"{tmp_path}/day-1.csv and 1 more: users from user_id")


@pytest.mark.parametrize(
    "text",
    [
        "user_id,item_id,interaction\nu1,i1,5,\nu2,i2,4,\n",
        "user_id,item_id,interaction,\nu1,i1,5,\nu2,i2,4,\n",
        "user_id,item_id,interaction\n\nu1,i1,5\n   \nu2,i2,4\n\n",
        "user_id, item_id, interaction\nu1, i1, 5\nu2, i2, 4\n",
        "user_id | item_id | interaction\nu1 | i1 | 5\nu2 | i2 | 4\n",
        '"user_id","item_id","interaction"\r\n"u1","i1","5"\r\n"u2","i2","4"\r\n',
        "interaction\tuser_id\titem_id\r5\tu1\ti1\r4\tu2\ti2",
        '[{"user_id": "u1", "item_id": "i1", "interaction": 5},\n'
        ' {"user_id": "u2", "item_id": "i2", "interaction": "4"}]',
        '{\n"user_id": "u1", "item_id": "i1", "interaction": 5}{"user_id": "u2", "item_id": "i2",\n'
        '"interaction": 4}',
    ],
)
def test_users_and_items_are_never_swapped_or_lost(tmp_path: Path, text: str) -> None:
    rows = of(events(written(tmp_path, "a.txt", text))[0])
    assert rows == [("u1", "i1", 5.0), ("u2", "i2", 4.0)]


def test_a_quoted_field_may_hold_separators_quotes_and_lines(tmp_path: Path) -> None:
    text = 'user_id,item_id\n"a, ""b""\nc",i\nd,\n'
    file = written(tmp_path, "a.csv", text)
    with pytest.raises(FileError, match=r"1 of 2 rows .*line 4: item_id is missing"):
        events(file)
    assert of(events(file, skip_invalid=True)[0]) == [('a, "b"\nc', "i", 1.0)]


def test_ids_are_what_is_written(tmp_path: Path) -> None:
    ids = ["NA", "null", "nan", "None", "007", "1e5", "8.0", "1.50", "-x", "true", "\u65e5\u672c"]
    for name, text in (
        ("a.csv", "user_id,item_id\n" + "".join(f"{each},{each}\n" for each in ids)),
        ("a.jsonl", "\n".join(json.dumps({"user_id": each, "item_id": each}) for each in ids)),
    ):
        assert [row[:2] for row in events(written(tmp_path, name, text))[0]] == [
            (e, e) for e in ids
        ]
    pd.DataFrame({"user_id": ids, "item_id": ids}).to_parquet(tmp_path / "a.parquet")
    assert [row[0] for row in events(str(tmp_path / "a.parquet"))[0]] == ids


def test_a_column_of_whole_numbers_with_gaps_gives_whole_ids(tmp_path: Path) -> None:
    frame = pd.DataFrame({"user_id": [8.0, 9.0, None], "item_id": [1, 2, 3]})
    frame.to_parquet(tmp_path / "a.parquet")
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame[:2].to_json(tmp_path / "a.jsonl", orient="records", lines=True)
    for path in tmp_path.iterdir():
        assert [row[0] for row in events(str(path), skip_invalid=True)[0]] == ["8", "9"]


def test_a_blank_type_or_interaction_is_the_default(tmp_path: Path) -> None:
    text = "user_id,item_id,interaction,type\nu1,i1,2,view\nu2,i2,,\n"
    assert events(written(tmp_path, "a.csv", text))[0] == [
        ("u1", "i1", 2.0, "view"), ("u2", "i2", 1.0, "interaction"),
    ]  # fmt: skip


def test_a_pipe_is_read_as_a_file(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.write(writing, gzip.compress(b"user_id,item_id\nu,i\n"))
    os.close(writing)
    assert of(events(f"/dev/fd/{reading}")[0]) == [("u", "i", 1.0)]
    os.close(reading)


@pytest.mark.parametrize(
    ("name", "text", "options"),
    [
        ("a.csv", "sep=;\nuser_id;item_id;rating\nu;i;4\n", {}),
        ("a.csv", ",,\nuser_id,item_id,rating\n ,,\nu,i,4\n", {"blank": True}),
        ("a.csv", "# made by hand\n#\nuser_id,item_id,rating\nu,i,4\n", {}),
        ("a.csv", "#user,item_id,rating\nu,i,4\n", {"user": "#user"}),
        ("a.txt", "# Nodes: 2 Edges: 1\n# From\tTo\tWeight\nu\ti\t4\n", {"names": True}),
        ("out.a", "% bip weighted\n% 1 1 1\nu i 4\n", {"names": True}),
    ],
)
def test_lines_before_the_rows_are_no_events(
    tmp_path: Path, name: str, text: str, options: dict[str, Any]
) -> None:
    if options.pop("names", False):
        options["names"] = ("user", "item", "rating")
    blank = options.pop("blank", False)
    rows, _, notes = events(written(tmp_path, name, text), **options)
    assert of(rows) == [("u", "i", 4.0)]
    passed = 0 if blank else len(text.splitlines()) - 1 - ("names" not in options)
    assert ("passed over" in notes[0]) == (passed > 0)


def test_a_wrong_row_is_named_by_its_line_also_after_remarks(tmp_path: Path) -> None:
    for separator in (",", "\t"):
        rows = (["user_id", "item_id"], ["u", "i"], ["", "i"])
        text = "# one\n# two\n" + "\n".join(separator.join(row) for row in rows)
        with pytest.raises(FileError, match=r"line 5: user_id is missing"):
            events(written(tmp_path, "a.txt", text))


@pytest.mark.parametrize("gap", ["", "NULL", "\\N", "NaT", "None", "N/A"])
def test_a_gap_among_numbers_and_times_is_said_with_its_count(tmp_path: Path, gap: str) -> None:
    text = f"user_id,item_id,rating,timestamp\nu1,i1,4,{gap}\nu2,i2,{gap},2020-01-01\n"
    for made in (written(tmp_path, "a.csv", text), _lines(tmp_path, text)):
        rows, times, notes = events(made)
        assert dict(zip([row[2] for row in rows], times, strict=True)) == {
            4.0: NOW, 1.0: 1_577_836_800_000,
        }  # fmt: skip
        assert notes[1:] == [
            "1 row has no time and gets the time of now.",
            "1 row has no interaction and counts 1.",
        ]


def _lines(folder: Path, text: str) -> str:
    head, *rows = (line.split(",") for line in text.splitlines())
    lines = [json.dumps(dict(zip(head, row, strict=True))) for row in rows]
    return written(folder, "a.jsonl", "\n".join(lines))


def test_nan_in_json_costs_the_row_that_has_it(tmp_path: Path) -> None:
    good = '{"user_id": "u", "item_id": "i1", "rating": 4.0}'
    file = written(tmp_path, "a.jsonl", good + "\n" + good.replace("4.0", "NaN") + "\n")
    with pytest.raises(FileError, match="line 2: rating is nan, which is no number"):
        events(file)
    unused = written(tmp_path, "b.jsonl", good + "\n" + good.replace("}", ', "x": NaN}') + "\n")
    assert len(events(unused)[0]) == 2


def test_decimals_may_stand_after_a_comma_if_the_column_tells_so(tmp_path: Path) -> None:
    text = "user_id;item_id;rating\nu1;i1;4,5\nu2;i2;1,125\nu3;i3;3\n"
    rows, _, notes = events(written(tmp_path, "a.csv", text))
    assert [row[2] for row in rows] == [4.5, 1.125, 3.0]
    assert notes[0].endswith("rating with a comma before the decimals.")
    for unclear in ("1,125", "4,5\nu3;i3;3.5"):
        text = f"user_id;item_id;rating\nu1;i1;3\nu2;i2;{unclear}\n"
        with pytest.raises(FileError, match="which is no number"):
            events(written(tmp_path, "a.csv", text))


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary(2), pa.binary_view()])
def test_ids_of_a_parquet_file_that_are_no_utf_8_are_named_by_their_row(
    tmp_path: Path, kind: pa.DataType
) -> None:
    table = pa.table({"user_id": pa.array([b"u1", b"\xff\xfe"], kind), "item_id": ["i1", "i2"]})
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(FileError, match="row 2: user_id holds bytes that are no UTF-8"):
        events(str(tmp_path / "a.parquet"))
    assert of(events(str(tmp_path / "a.parquet"), skip_invalid=True)[0]) == [("u1", "i1", 1.0)]


def test_a_damaged_line_does_not_decide_how_the_others_are_read(tmp_path: Path) -> None:
    good = '{"user_id": "u", "item_id": "i"}'
    for damaged in ('{"user_id": "u", "it', '{"x": ' + "[" * 5000 + "]" * 5000 + "}"):
        for text in (f"{damaged}\n{good}\n", f"{good}\n{damaged}\n"):
            file = written(tmp_path, "a.jsonl", text)
            with pytest.raises(FileError, match=r"1 of 2 rows .*line \d: it is no JSON"):
                events(file)
            assert of(events(file, skip_invalid=True)[0]) == [("u", "i", 1.0)]
