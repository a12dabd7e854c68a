"""Messages that run into an error which nobody expected are skipped and said."""

import logging
from unittest.mock import Mock

import pytest

from consumer.event.json import encode
from consumer.kafka.client import Message
from serving.loop import taking
from serving.loop.taking import Taking
from tests.ingesting import likes


def test_skipped_messages_are_said_again_after_a_while_with_their_count(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    edges = Mock(apply=Mock(side_effect=ZeroDivisionError("surprise")))
    made = Taking(edges, Mock(), Mock(), Mock(), Mock(), logging.getLogger("test"))

    def take(offset: int) -> None:
        (event,) = likes("u", ["i"])
        made.take([Message("t", 0, offset, 1_700_000_000_000, b"u", encode(event), [])])

    take(0)
    take(1)
    assert caplog.text.count("is skipped (ZeroDivisionError: surprise)") == 1
    monkeypatch.setattr(taking, "SAY_SECONDS", 0.0)
    take(2)
    assert "Offset 2 of partition 0 is skipped" in caplog.text
    assert "Messages skipped so far: 3;" in caplog.text
