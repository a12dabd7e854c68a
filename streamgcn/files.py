"""Interaction files: CSV, Parquet or JSON lines -> a data frame of the event's columns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from consumer.event.json import Event
from process.errors import StreamGCNError

SECONDS_BELOW = 1e11  # a numeric timestamp below is in seconds: as milliseconds it were before 1973


class FileError(StreamGCNError):
    """An interaction file cannot be read; the text names the file and the fix."""


@dataclass(frozen=True)
class Columns:
    """Names of a file's columns; only the first two must be there."""

    user: str = "user_id"
    item: str = "item_id"
    interaction: str = "interaction"
    timestamp: str = "timestamp"
    type: str = "type"


def read(path: Path, columns: Columns) -> pd.DataFrame:
    """Interactions of a file, in its order.

    Returns:
        Columns user_id, item_id, type (strings), interaction (float64) and, if the file has it,
        timestamp (int64, epoch milliseconds).

    Raises:
        FileError: the file is missing, of an unknown kind, or lacks a column.
    """
    frame = _load(path, columns)
    for column in (columns.user, columns.item):
        if column not in frame:
            raise FileError(
                f"{path} has no column {column!r}, only {list(frame.columns)}; name it with "
                "--user-column or --item-column"
            )
        if frame[column].isna().any():
            row = int(frame[column].isna().to_numpy().argmax())
            raise FileError(f"{path} has no {column} in row {row + 1}; mend or drop the row")
    made = pd.DataFrame(
        {"user_id": frame[columns.user].astype(str), "item_id": frame[columns.item].astype(str)}
    )
    made["interaction"] = _numbers(path, frame, columns.interaction)
    made["type"] = frame[columns.type].astype(str) if columns.type in frame else "interaction"
    if columns.timestamp in frame:
        made["timestamp"] = _milliseconds(path, frame[columns.timestamp])
    return made


def events(frame: pd.DataFrame, now_ms: int) -> Iterator[Event]:
    """The rows of `read` as events; those without a timestamp get `now_ms`."""
    times = frame["timestamp"] if "timestamp" in frame else pd.Series([now_ms] * len(frame))
    fields = (frame["user_id"], frame["item_id"], frame["interaction"], times, frame["type"])
    return (Event(*row) for row in zip(*(column.tolist() for column in fields), strict=True))


def rows(frame: pd.DataFrame) -> pa.Table:
    """The rows of `read` as the columns that the graph takes of the edge store."""
    times = frame["timestamp"].to_numpy() * 1000 if "timestamp" in frame else [0] * len(frame)
    columns: dict[str, Any] = {
        name: frame[name].tolist() for name in ("user_id", "item_id", "type")
    }
    columns["interaction"] = frame["interaction"].to_numpy()
    return pa.table(columns | {"timestamp": pa.array(times, pa.timestamp("us", tz="UTC"))})


def _load(path: Path, columns: Columns) -> pd.DataFrame:
    text = {columns.user: str, columns.item: str}
    try:
        match path.suffix:
            case ".csv":
                return pd.read_csv(path, dtype=text)
            case ".parquet":
                return pd.read_parquet(path)
            case ".jsonl" | ".ndjson":
                return pd.read_json(path, lines=True, dtype=False)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise FileError(f"{path} cannot be read: {error}") from error
    raise FileError(f"{path} is of an unknown kind; use .csv, .parquet, .jsonl or .ndjson")


def _numbers(path: Path, frame: pd.DataFrame, column: str) -> pd.Series[float]:
    if column not in frame:
        return pd.Series(1.0, index=frame.index)
    numbers = pd.to_numeric(frame[column], errors="coerce").astype(float)
    wrong = numbers.isna() & frame[column].notna()
    if wrong.any():
        value = frame[column][wrong].iloc[0]
        raise FileError(f"{path} has {column} {value!r}, which is not a number; mend the row")
    return numbers.fillna(1.0)


def _milliseconds(path: Path, column: pd.Series[Any]) -> pd.Series[int]:
    try:
        if pd.api.types.is_numeric_dtype(column):
            seconds = float(column.max()) < SECONDS_BELOW
            return (column * 1000 if seconds else column).astype("int64")
        times = pd.to_datetime(column, utc=True, format="ISO8601")
        return times.astype("datetime64[ms, UTC]").astype("int64")
    except (ValueError, TypeError, OverflowError) as error:
        raise FileError(f"{path} has a timestamp that cannot be read: {error}") from error
