"""Dates as files write them -> UTC; what numbers mean is the rule of consumer/event/times.py.

ISO 8601 with or without a zone, dates without separators (20260920), dates with the English name
of the month, and dates with the year last, of which somebody must know whether the month or the day
comes first.
"""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from typing import Literal, NamedTuple

Order = Literal["month", "day"]  # what comes first where the year comes last
_CLOCK = (
    r"(?:[T ]\s*(?P<hour>\d{1,2}):(?P<minute>\d{2})(?::(?P<second>\d{2})(?:[.,](?P<part>\d+))?)?"
    r"\s*(?P<half>[AaPp]\.?[Mm]\.?)?)?"
)
_ZONE = r"\s*(?P<zone>Z|UTC|GMT|(?P<sign>[+-])(?P<ahead>\d{2}):?(?P<minutes>\d{2})(?:\s*UTC)?)?"
_YEAR_FIRST = re.compile(r"(?P<year>\d{4})([-/.])(?P<a>\d{1,2})\2(?P<b>\d{1,2})" + _CLOCK + _ZONE)
_YEAR_LAST = re.compile(r"(?P<a>\d{1,2})([-/.])(?P<b>\d{1,2})\2(?P<year>\d{4})" + _CLOCK + _ZONE)
_COMPACT = re.compile(
    r"(?P<year>\d{4})(?P<a>\d{2})(?P<b>\d{2})"
    r"(?:[T ]?(?P<hour>\d{2}):?(?P<minute>\d{2})(?::?(?P<second>\d{2}))?)?(?:\.0+)?" + _ZONE
)
_WEEKDAY = r"(?:(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)[a-z]*,?\s+)?"
_NAMED = tuple(  # Tue Apr 03 18:00:09 +0000 2012; 3 Apr 2012 18:00:09 GMT; April 3, 2012
    re.compile(_WEEKDAY + form)
    for form in (
        r"(?P<a>[A-Z][a-z]+)\s+(?P<b>\d{1,2})" + _CLOCK + _ZONE + r"\s+(?P<year>\d{4})",
        r"(?P<b>\d{1,2})([- ])(?P<a>[A-Z][a-z]+)\2(?P<year>\d{4})" + _CLOCK + _ZONE,
        r"(?P<a>[A-Z][a-z]+)\s+(?P<b>\d{1,2}),?\s+(?P<year>\d{4})" + _CLOCK + _ZONE,
    )
)
_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September",
    "October", "November", "December",
)  # fmt: skip


class Moment(NamedTuple):
    """A time, and whether its text had a zone; without one it was taken for UTC."""

    time: datetime
    zoned: bool


def read(text: str, order: Order | None) -> Moment | None:
    """The time that a text tells, None if it tells none.

    `order` is for dates with the year last.
    """
    if text[4:5] == "-" and text[10:11] in ("", "T", "t", " "):
        with suppress(ValueError):
            return _zoned(datetime.fromisoformat(text))
    for form in (_YEAR_FIRST, _COMPACT):
        if found := form.fullmatch(text):
            return _moment(found, int(found["a"]), int(found["b"]))
    for form in _NAMED:
        if (found := form.fullmatch(text)) and (month := _month(found["a"])):
            return _moment(found, month, int(found["b"]))
    if order and (found := _YEAR_LAST.fullmatch(text)):
        a, b = int(found["a"]), int(found["b"])
        return _moment(found, *((a, b) if order == "month" else (b, a)))
    return None


def read_as(text: str, form: str) -> Moment | None:
    """The time that a text in the form of strptime tells, None if it is not of this form."""
    try:
        return _zoned(datetime.strptime(text, form))
    except (ValueError, OverflowError):
        return None


def year_last(text: str) -> bool:
    """Whether it is a date with the year last."""
    return _YEAR_LAST.fullmatch(text) is not None


def order_of(text: str) -> Order | None:
    """What comes first in a date with the year last, where a number above 12 tells."""
    found = _YEAR_LAST.fullmatch(text)
    if not found:
        return None
    if int(found["a"]) > 12:
        return "day"
    return "month" if int(found["b"]) > 12 else None


def _month(name: str) -> int | None:
    """The number of a month, whose name may be cut to three letters or more."""
    places = (n for n, month in enumerate(_MONTHS, 1) if len(name) > 2 and month.startswith(name))
    return next(places, None)


def _zoned(time: datetime) -> Moment:
    if time.tzinfo is None:
        return Moment(time.replace(tzinfo=UTC), False)
    return Moment(time, True)


def _moment(found: re.Match[str], month: int, day: int) -> Moment | None:
    parts = found.groupdict()
    hour = int(parts["hour"] or 0)
    if half := parts.get("half"):
        if not 1 <= hour <= 12:
            return None
        hour = hour % 12 + (12 if half[0] in "Pp" else 0)
    micros = int((parts.get("part") or "0")[:6].ljust(6, "0"))
    zone: timezone = UTC
    if parts["sign"]:
        ahead = timedelta(hours=int(parts["ahead"]), minutes=int(parts["minutes"]))
        if ahead >= timedelta(days=1):
            return None
        zone = timezone(ahead if parts["sign"] == "+" else -ahead)
    try:
        minute, second = int(parts["minute"] or 0), int(parts["second"] or 0)
        time = datetime(int(parts["year"]), month, day, hour, minute, second, micros, zone)
    except ValueError:
        return None
    return Moment(time, parts["zone"] is not None)
