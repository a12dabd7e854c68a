import json
import logging
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from process import log
from process.text import visible
from tests.hostile import HOSTILE, is_safe

NOT_UTF8 = ["\udcff", "\ud800", "\udc1b"]


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers, root.level = handlers, level


@pytest.mark.parametrize("text", [*HOSTILE, *NOT_UTF8])
def test_text_from_outside_moves_no_cursor_and_begins_no_line(text: str) -> None:
    shown = visible(text)
    assert is_safe(shown)
    assert shown
    assert visible(shown) == shown


@given(st.text(st.characters()))
def test_no_text_at_all_reaches_a_terminal_unescaped(text: str) -> None:
    assert is_safe(visible(text))


def test_what_can_be_seen_is_shown_as_it_is_and_the_rest_as_its_escape() -> None:
    assert visible("Zoë 日本 हिन्दी 🙂 [/b] :smile: \\n") == "Zoë 日本 हिन्दी 🙂 [/b] :smile: \\n"
    assert visible("a\nb\x1b[1m\u202e\x85\U000e0041") == "a\\nb\\x1b[1m\\u202e\\x85\\U000e0041"
    assert visible(b"u\xff\xc3\xab") == "u\\xffë"
    assert visible(b"abc" * 1_000_000, limit=4) == "abca..."


@pytest.mark.parametrize("text", [*HOSTILE, *NOT_UTF8])
@pytest.mark.parametrize("log_format", ["text", "json"])
def test_no_text_makes_a_second_line_of_the_log(
    text: str, log_format: str, capsys: pytest.CaptureFixture[str]
) -> None:
    log.configure(log_format)
    log.Figures("consumer").report("ingested", stage=text, rejected=1)
    logging.getLogger("consumer").warning("Rejected: %s.", text)
    lines = capsys.readouterr().err.removesuffix("\n").split("\n")
    assert len(lines) == 2
    assert all(map(is_safe, lines))
    if log_format == "json":
        figures, warning = map(json.loads, lines)
        assert figures["stage"] == visible(text)
        assert warning["message"] == f"Rejected: {visible(text)}."


def test_no_line_of_a_traceback_passes_for_a_line_of_the_log(
    capsys: pytest.CaptureFixture[str],
) -> None:
    log.configure("text")
    try:
        raise ValueError("x\n2026-01-01T00:00:00Z INFO consumer \x1b[31mforged")
    except ValueError:
        logging.getLogger("consumer").exception("It failed.")
    first, *others = capsys.readouterr().err.splitlines()
    assert first.endswith("ERROR consumer It failed.")
    assert len(others) > 2
    assert all(line.startswith("  ") and is_safe(line) for line in others)
