"""A column of times -> timestamps in UTC, with what was found of units and zones on the way.

What a number means is the rule of consumer/event/times.py, value by value; what a text means that
is no number is told by dates.py, or by the form of strptime that was given.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from consumer.event import times
from process.text import visible
from streamgcn.files import dates
from streamgcn.files.numbers import without_gaps
from streamgcn.files.source import FileError

NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?$"
TIMES = pa.timestamp("ms", "UTC")
UNITS = (("seconds", 1), ("milliseconds", 10**3), ("microseconds", 10**6), ("nanoseconds", 10**9))
AHEAD = f"is before {times.FIRST_YEAR} or more than a day ahead"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass
class Found:
    """What was found in a file beside events.

    Attributes:
        forms: how many times were in each form.
        zoneless: how many times had no zone.
        missing: how many rows have no time.
        uncounted: how many rows have no interaction, where the file has a column of them.
    """

    forms: Counter[str] = field(default_factory=Counter)
    zoneless: int = 0
    missing: int = 0
    uncounted: int = 0


def moments(
    column: pa.Array, form: str | None, order: dates.Order | None, found: Found
) -> tuple[pa.Array, dict[int, str]]:
    """Timestamps of a column, null where there is none.

    Args:
        form: of strptime, which all values have; None to tell by themselves.
        order: of dates with the year last.
        found: is added to.

    Returns:
        The timestamps, milliseconds in UTC, and the reasons why some rows, by their place in the
        column, have none although something stands there.

    Raises:
        FileError: the column's type holds no times.
    """
    kind, column = column.type, without_gaps(column)
    found.missing += column.null_count
    if pt.is_timestamp(kind) or pt.is_date(kind):
        return _typed(column, found)
    if pt.is_decimal(kind):
        column, kind = column.cast(pa.float64()), pa.float64()
    if form is not None:
        return _texts(column.cast(pa.string()), form, order, found)
    if pt.is_string(kind):
        numeric = pc.match_substring_regex(column, NUMBER).fill_null(False)
        numbers = pc.if_else(numeric, column, None).cast(pa.float64())
    elif pt.is_integer(kind) or pt.is_floating(kind) or pt.is_null(kind):
        numbers = column.cast(pa.float64(), safe=False)
    else:
        raise FileError(f"{visible(str(kind))} holds no times")
    made = times.of_column(numbers)
    told = made != 0
    _count_units(numbers.to_numpy(zero_copy_only=False)[told], found)
    rest = pc.if_else(pa.array(told), None, column).cast(pa.string())
    texts, wrong = _texts(rest, None, order, found)
    of_numbers = pa.array(made, mask=~told).cast(TIMES)
    return pc.coalesce(of_numbers, texts), wrong


def _typed(column: pa.Array, found: Found) -> tuple[pa.Array, dict[int, str]]:
    if pt.is_date(column.type):
        column = column.cast(pa.timestamp("s" if pt.is_date32(column.type) else "ms"))
    unit = column.type.unit
    given = column.is_valid().to_numpy(zero_copy_only=False)
    if column.type.tz is None:
        found.zoneless += int(given.sum())
        column = column.cast(pa.timestamp(unit, "UTC"))
    found.forms["as timestamps"] += int(given.sum())
    made = times.of_column(column)
    ticks = column.cast(pa.int64())
    wrong = {
        row: _reason(ticks[row].as_py(), unit)
        for row in np.flatnonzero(given & (made == 0)).tolist()
    }
    return pa.array(made, mask=made == 0).cast(TIMES), wrong


def _texts(
    column: pa.Array, form: str | None, order: dates.Order | None, found: Found
) -> tuple[pa.Array, dict[int, str]]:
    """Each text that occurs is read once; as `moments`."""
    coded = column.dictionary_encode()
    texts = coded.dictionary.to_pylist()
    places = coded.indices.fill_null(len(texts)).to_numpy(zero_copy_only=False).astype(np.int64)
    counts = np.bincount(places, minlength=len(texts)).tolist()
    made: list[int | None] = []
    reasons: dict[int, str] = {}
    for place, text in enumerate(texts):
        moment = dates.read_as(text, form) if form else dates.read(text, order)
        ms = (moment.time - _EPOCH) // timedelta(milliseconds=1) if moment else None
        if moment and ms is not None and times.is_time(ms):
            found.zoneless += 0 if moment.zoned else counts[place]
            found.forms[_form(text, form, order)] += counts[place]
            made.append(ms)
        else:
            reasons[place] = f"the time {visible(text, 40)} {AHEAD}" if moment else _why(text, form)
            made.append(None)
    rows: list[int] = np.flatnonzero(np.isin(places, list(reasons))).tolist()
    wrong = {row: reasons[int(places[row])] for row in rows}
    return pa.array(made, pa.int64()).take(coded.indices).cast(TIMES), wrong


def _form(text: str, form: str | None, order: dates.Order | None) -> str:
    if form:
        return f"as {visible(form)}"
    return f"with the {order} first" if dates.year_last(text) else "as dates"


def _count_units(numbers: np.ndarray, found: Found) -> None:
    for unit, per_second in UNITS:
        inside = (numbers >= times.FIRST_S * per_second) & (numbers <= times.LAST_S * per_second)
        if count := int(inside.sum()):
            found.forms[f"in {unit}"] += count


def _reason(value: int | str, unit: str = "") -> str:
    """What is wrong with a number, without how to send it as a message."""
    return "the time " + times.why(value, unit).split("; send ")[0].removeprefix("timestamp ")


def _why(text: str, form: str | None) -> str:
    shown = visible(text, 40)
    if form:
        return f"the time {shown} is not of the form {visible(form)}"
    if pc.match_substring_regex(pa.scalar(text), NUMBER).as_py():
        return _reason(text)
    return (
        f"the time {shown} cannot be told; give its form with --timestamp-format, as in "
        "'%d/%m/%Y %H:%M'"
    )
