"""The tidying of the edge store goes on, whatever went wrong, and also where nothing is written."""

import logging
from pathlib import Path

import pytest

from consumer.edge.store import EdgeStore
from consumer.ingest.housekeeping import Housekeeping
from consumer.settings import ConsumerSettings
from tests.services import wait_for


def test_an_unexpected_error_is_one_line_and_a_quiet_store_is_tidied_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    settings = ConsumerSettings(edge_store=str(tmp_path / "edges"), retention_days=1e-9)
    EdgeStore.begin(settings.edge_store, settings.kafka_topic)
    tidied, real = [], EdgeStore.tidy

    def tidy(store: EdgeStore, *arguments: float | None) -> object:
        tidied.append(arguments)
        if len(tidied) == 1:
            raise TypeError("nobody foresaw it")
        return real(store, *arguments)

    monkeypatch.setattr(EdgeStore, "tidy", tidy)
    housekeeping = Housekeeping(settings, logging.getLogger("test"))

    def again() -> bool:
        housekeeping.look()
        return "The edge store is tidied after" in caplog.text

    wait_for("the next try", again, 30)
    housekeeping.close()
    assert len([each for each in caplog.messages if "nobody foresaw it" in each]) == 1
