"""The rules of an event, over columns: which rows are good, and what is wrong with each other one.

Whoever made the columns asks here: the decoders of JSON and of Arrow messages, and `publish` of a
file before anything is sent.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from consumer.event import times
from consumer.event.columns import is_text, nulls, read_ids, read_numbers, read_text, read_times
from consumer.event.errors import SHOWN
from process.text import visible

ID_BYTES = 256
TYPE_BYTES = 64
LARGEST = 1e12  # interaction: what is made of such numbers is still finite in float32
REMOVE = "remove"
FORGET = "forget"  # needs no item_id
# A message with this header forgets in its own partition alone; `streamgcn forget` sends one to
# each. In the columns such a row has HERE for an item.
HERE = "partition"
ONLY_HERE = (FORGET, HERE.encode())
DEFAULT = "interaction"  # the type of an event that gives none
NAMES = ("user_id", "item_id", "interaction", "timestamp", "type")
NUMBER = f"send a number from -{LARGEST:g} to {LARGEST:g}"  # what is said of a wrong interaction


class Bad(NamedTuple):
    """A row that is no event: its number from 0, and why; the reason has no control characters."""

    row: int
    reason: str


class Checked(NamedTuple):
    """The good rows, and what is wrong with the others."""

    table: pa.Table  # columns as `check` returns them
    rows: npt.NDArray[np.int64]  # number of each good row in what was given, ascending
    bad: list[Bad]  # ascending


def check(given: pa.Table | pa.RecordBatch) -> Checked:
    """Apply the rules to columns named as the fields of an event; others are not looked at.

    A null, or a column that is not there, means "not given". What Arrow says of the given arrays
    must be true (`validate(full=True)`).

    Args:
        given: user_id and item_id (strings or integers), interaction (any number), timestamp
            (numbers, strings, or timestamps with a zone: see times.py) and type (strings), or
            dictionaries of these. Only the first two must be there.

    Returns:
        The good rows as columns user_id, item_id (empty of a `forget`), type (string), interaction
        (float64) and timestamp (int64, epoch milliseconds, null where it was not given).

    Raises:
        EventError: a column is missing, is there twice, or is of a type that cannot be right.
    """
    n = given.num_rows
    users = read_ids(given, "user_id", ID_BYTES)
    items = read_ids(given, "item_id", ID_BYTES)
    kinds = read_text(given, "type", TYPE_BYTES)
    types = kinds.values.fill_null(DEFAULT)
    forgets = pc.equal(types, FORGET).to_numpy(zero_copy_only=False)
    interactions = read_numbers(given, "interaction")
    moments = read_times(given, "timestamp")
    checks = [
        (nulls(users.values), _by_value(users.given, partial(_no_id, "user_id"))),
        (nulls(items.values) & ~forgets, _by_value(items.given, partial(_no_id, "item_id"))),
        (kinds.wrong, _by_value(kinds.given, partial(_too_long, "type", TYPE_BYTES))),
        (
            ~(np.abs(interactions) <= LARGEST),
            lambda row: f"interaction is {interactions[row]:g}; {NUMBER}",
        ),
        (moments.wrong, _by_value(moments.given, _no_time)),
    ]
    good = np.ones(n, np.bool_)
    bad: list[Bad] = []
    for wrong, why in checks:
        bad += (Bad(row, why(row)) for row in np.flatnonzero(wrong & good).tolist())
        good &= ~wrong
    columns = {
        "user_id": users.values,
        "item_id": pc.if_else(forgets, "", items.values) if forgets.any() else items.values,
        "type": types,
        "interaction": interactions,
        "timestamp": pa.array(moments.values, mask=moments.values == 0),
    }
    table = pa.table(columns)
    if bad:
        table = table.filter(pa.array(good))
    return Checked(table, np.flatnonzero(good), sorted(bad))


def _by_value(column: pa.Array, explain: Callable[[pa.Scalar], str]) -> Callable[[int], str]:
    """What is said of a row, by its value; once for each value of a dictionary, for it is long."""
    if not pt.is_dictionary(column.type):
        return lambda row: explain(column[row])
    values, numbers = column.dictionary, column.indices

    @cache
    def of_number(number: int | None) -> str:
        return explain(pa.scalar(None, values.type) if number is None else values[number])

    return lambda row: of_number(numbers[row].as_py())


def _no_id(name: str, given: pa.Scalar) -> str:
    if not given.is_valid:
        return f"{name} is missing; send a string or an integer"
    if not given.as_buffer().size:
        return f"{name} is empty; send 1 to {ID_BYTES} bytes"
    return _too_long(name, ID_BYTES, given)


def _too_long(name: str, most: int, given: pa.Scalar) -> str:
    return f"{name} is longer than {most} bytes: {visible(_beginning(given), SHOWN)}"


def _beginning(text: pa.Scalar) -> bytes:
    beginning: bytes = text.as_buffer()[: 4 * SHOWN + 4].to_pybytes()
    return beginning


def _no_time(given: pa.Scalar) -> str:
    if isinstance(given, pa.TimestampScalar):
        return times.why(given.value, given.type.unit)
    if is_text(given.type):
        return times.why(_beginning(given).decode(errors="replace"))
    return times.why(given.as_py())
