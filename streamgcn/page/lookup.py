"""What the page's box finds: a user's edges, list and reasons; an item's neighbours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow.compute as pc

from consumer.edge.order import ordered
from consumer.edge.store import EdgeStore
from consumer.event.rules import ID_BYTES, REMOVE
from process.errors import StreamGCNError
from process.text import visible
from serving.redis.contract import Recommendations
from serving.redis.store import Store
from serving.settings import ServingSettings

Look = Callable[[Store], Recommendations | None]
EDGES = 100  # of a user that are shown, the newest ones


def user(settings: ServingSettings, name: str) -> dict[str, Any]:
    """A user's edges, newest first, and the list; a part that is missing says why."""
    if trouble := _wrong(name):
        return {"trouble": trouble}
    found: dict[str, Any] = {"id": visible(name)}
    try:
        found["edges"] = _edges(settings, name)
    except (StreamGCNError, OSError) as error:
        found["edges_trouble"] = visible(str(error), 500)
    return found | _list(settings, lambda store: store.user(name), "There is no list yet.")


def item(settings: ServingSettings, name: str) -> dict[str, Any]:
    """An item's neighbours."""
    if trouble := _wrong(name):
        return {"trouble": trouble}
    found = {"id": visible(name)}
    missing = "No neighbours: the live model does not know this item."
    return found | _list(settings, lambda store: store.neighbors(name), missing)


def _wrong(name: str) -> str:
    return "" if 0 < len(name.encode(errors="replace")) <= ID_BYTES else "An id has 1 to 256 bytes."


def _list(settings: ServingSettings, look: Look, missing: str) -> dict[str, Any]:
    store = Store(settings.redis_url, settings.redis_prefix)
    try:
        found = look(store)
    except StreamGCNError as error:
        return {"list_trouble": visible(str(error), 500)}
    finally:
        store.close()
    if found is None:
        return {"list_trouble": missing}
    because = found.because or [""] * len(found.items)
    rows = zip(found.items, found.scores, because, strict=True)
    return {
        "list": [[visible(each), round(score, 4), visible(why)] for each, score, why in rows],
        "source": found.source,
        "model": visible(found.model),
        "event_at": found.event_at,
        "updated_at": found.updated_at,
    }


def _edges(settings: ServingSettings, name: str) -> list[list[str]]:
    rows = ordered(EdgeStore(settings.edge_store, settings.kafka_topic).rows_of(name))
    columns = ["item_id", "type", "interaction", "timestamp"]
    rows = rows.select(columns).set_column(3, "timestamp", pc.strftime(rows["timestamp"], "%F %T"))
    latest: dict[str, list[str]] = {}
    for row in rows.to_pylist():
        latest.pop(row["item_id"], None)
        if row["type"] != REMOVE:
            shown = (row["item_id"], row["type"], f"{row['interaction']:g}", row["timestamp"][:19])
            latest[row["item_id"]] = [visible(text) for text in shown]
    return list(reversed(latest.values()))[:EDGES]
