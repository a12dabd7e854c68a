"""The one rule of times, for messages and for files: what a timestamp means, in epoch milliseconds.

A number is read in the one unit in which it lies between the years 1990 and 2200. The four ranges
do not touch, so no number has two meanings:

    seconds        631152000           to 7258118400
    milliseconds   631152000000        to 7258118400000
    microseconds   631152000000000     to 7258118400000000
    nanoseconds    631152000000000000  to 7258118400000000000

So dates written as numbers (20260920, 202609201200, 20260920120000) are times in no unit, and are
refused. A time must not be more than a day ahead, for clocks that differ.
"""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.types as pt

from process.text import visible

FIRST_YEAR, LAST_YEAR = 1990, 2200
FIRST_S, LAST_S = 631_152_000, 7_258_118_400  # 1990-01-01 and 2200-01-01, epoch seconds
TEXT_BYTES = 64  # at most, of a time that is a string
SEND = "send RFC 3339 with a zone, or a number of seconds or milliseconds since 1970"
_UNITS = {"seconds": 1, "milliseconds": 1_000, "microseconds": 10**6, "nanoseconds": 10**9}
_ARROW_UNITS = dict(zip(("s", "ms", "us", "ns"), _UNITS.values(), strict=True))
_DAY_MS = 86_400_000
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]{1,4})?")
_Moment = Annotated[datetime, msgspec.Meta(tz=True)]
Milliseconds = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


def is_time(milliseconds: int) -> bool:
    """Whether epoch milliseconds are from 1990 to a day ahead, as a record's own time must be."""
    return FIRST_S * 1000 <= milliseconds <= last_ms()


def last_ms() -> int:
    """The newest time that is taken now: a day ahead, for clocks that differ."""
    return int(time.time() * 1000) + _DAY_MS


def of_column(column: pa.Array) -> Milliseconds | None:
    """Epoch milliseconds of numbers, strings or Arrow timestamps with a zone; int64 [rows].

    Where the column is null or holds no time it is 0; `why` says what is wrong there.

    Returns:
        None if a column of this type holds no times.
    """
    kind = column.type
    if pt.is_null(kind):
        return np.zeros(len(column), np.int64)
    if pt.is_timestamp(kind):
        if kind.tz is None:
            return None
        # The numbers as they are: a cast to another unit could overflow.
        ticks = column.view(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
        return _scaled(ticks, _ARROW_UNITS[kind.unit])
    if pt.is_integer(kind) or pt.is_floating(kind) or pt.is_decimal(kind):
        wide = pa.int64() if pt.is_integer(kind) else pa.float64()
        numbers = column.cast(wide, safe=False)  # from 2^63 on they are negative, and no times
        return _of_numbers(numbers.fill_null(0).to_numpy(zero_copy_only=False))
    if pt.is_string(kind):
        return _of_strings(column.to_pylist())
    return None


def why(value: int | float | str, unit: str = "") -> str:
    """What is wrong with a value, neither null nor a time, for which `of_column` gave 0.

    Args:
        unit: of Arrow timestamps, that of their numbers.
    """
    if unit:
        until = f"before {FIRST_YEAR} or more than a day ahead"
        return f"timestamp is {value} {unit} since 1970, which is {until}; {SEND}"
    number = _number(value) if isinstance(value, str) else value
    if number is not None:
        return f"timestamp is {value}, which is {_where(number)}; {SEND}"
    shown = visible(str(value), TEXT_BYTES)
    try:
        msgspec.convert(value, _Moment)
    except msgspec.ValidationError:
        return f"timestamp is '{shown}', which is no time with a zone; {SEND}"
    return f"timestamp is {shown}, which is before {FIRST_YEAR} or more than a day ahead; {SEND}"


def _of_numbers(numbers: npt.NDArray[Any]) -> Milliseconds:
    made: Milliseconds = np.zeros(len(numbers), np.int64)
    for per_second in _UNITS.values():
        of_unit = _scaled(numbers, per_second)
        made = np.where(of_unit, of_unit, made)
    return made


def _scaled(numbers: npt.NDArray[Any], per_second: int) -> Milliseconds:
    """Epoch milliseconds, 0 where it is no time in this unit."""
    last = np.float64(last_ms()) * (per_second / 1000)
    inside = (numbers >= FIRST_S * per_second) & (numbers <= last)  # so NaN is not
    kept = np.where(inside, numbers, 0)
    factor, divisor = max(1000 // per_second, 1), max(per_second // 1000, 1)
    milliseconds: Milliseconds = (kept * factor // divisor).astype(np.int64)
    return milliseconds


def _of_strings(texts: list[str | None]) -> Milliseconds:
    try:
        moments = msgspec.convert(texts, list[_Moment | None])
    except msgspec.ValidationError:  # one is a number, or nothing
        return np.array([_of_string(text) for text in texts], np.int64)
    return np.array([_of_moment(moment) for moment in moments], np.int64)


def _of_string(text: str | None) -> int:
    number = _number(text or "")
    if number is not None:
        small = abs(number) <= LAST_S * 10**9
        return int(_of_numbers(np.array([number]))[0]) if small else 0
    try:
        return _of_moment(msgspec.convert(text, _Moment | None))
    except msgspec.ValidationError:
        return 0


def _of_moment(moment: datetime | None) -> int:
    if moment is None:
        return 0
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    ms = since.days * _DAY_MS + since.seconds * 1000 + since.microseconds // 1000
    return ms if is_time(ms) else 0


def _number(text: str) -> int | float | None:
    if len(text) > TEXT_BYTES or not _NUMBER.fullmatch(text):
        return None
    return int(text) if text.lstrip("+-").isdigit() else float(text)


def _where(number: int | float) -> str:
    """What a number that is no time is instead: between which units, or how far ahead."""
    if number != number:
        return "not a number"
    below = ""
    for unit, per_second in _UNITS.items():
        if number < FIRST_S * per_second:
            return f"{below}before {FIRST_YEAR} in {unit}"
        if number <= LAST_S * per_second:
            return f"more than a day ahead in {unit}"
        below = f"after {LAST_YEAR} in {unit} and "
    return f"after {LAST_YEAR} in nanoseconds"
