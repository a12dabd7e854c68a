"""The command `status`, and `new-edge-store`, which an operator needs where a store is gone."""

from __future__ import annotations

import typer

from consumer.edge.store import EdgeStore, StoreError
from consumer.kafka.client import StreamError
from consumer.kafka.topics import group_lag
from process.settings import SettingsError
from serving.redis.errors import RedisDown
from serving.redis.store import Store
from serving.settings import ServingSettings
from streamgcn.terminal import out, say, show
from trainer.lifecycle.storage import opened


def new_edge_store() -> None:
    """Begin an empty edge store at EDGE_STORE, where a consumer waits for the one it had.

    A consumer begins one by itself only where its group has never stored anything.
    """
    settings = ServingSettings.load()
    store = EdgeStore.begin(settings.edge_store, settings.kafka_topic)
    say(out, f"There is an edge store at {settings.edge_store}, with {store.count()} rows.")


def status() -> None:
    """Show the lag, the rows of the edge store, the model of the lists, and what runs."""
    settings = ServingSettings.load()
    rows = []
    whole = True
    for room, group, done in (
        ("consumer", settings.kafka_group, "stored"),
        ("serving", f"{settings.kafka_group}-serving", "answered"),
    ):
        try:
            lag, members = group_lag(settings, group)
            who = "not running" if members == 0 else f"{members or 'unknown number'} running"
            rows.append((room, f"{who}, lag {lag} (messages not {done} yet)"))
            whole = whole and members != 0
        except SettingsError:
            raise  # as for any other wrong setting
        except StreamError as error:
            rows.append((room, str(error)))
            whole = False
    from trainer.lifecycle.running_training import doing

    models = opened(settings.model_store)
    try:
        models.check()
        rows.append(("trainer", doing(models)))
    except OSError as error:
        rows.append(("trainer", f"not known: cannot use MODEL_STORE {models}: {error}"))
        whole = False
    try:
        store = EdgeStore(settings.edge_store, settings.kafka_topic)
        rows.append(("edge store", f"{store.count()} rows, version {store.version}"))
    except SettingsError:
        raise
    except StoreError as error:
        rows.append(("edge store", str(error)))
        whole = False
    try:
        lists = Store(settings.redis_url, settings.redis_prefix)
        model, refused = lists.model(), lists.losses()  # where Redis does not tell of the model
        server = lists.ask_server()
        if server and server.evicted and server.evicts(settings.redis_ttl_seconds is not None):
            rows.append(("Redis", server.trouble))
            whole = False
        shown = ", ".join(f"{name} {value}" for name, value in model.items())
        rows.append(("model", shown or ("not known" if refused else "none yet")))
        rows += [("Redis", each) for each in refused]
    except RedisDown as error:
        rows.append(("model", str(error)))
        whole = False
    show("StreamGCN", ["what", "state"], rows)
    raise typer.Exit(0 if whole else 1)
