"""Texts that somebody may send for an id, to harm whoever looks at it."""

import unicodedata

HOSTILE = [
    "\x1b[31mred", "\x1b[2J\x1b[H", "\x1b]0;title\x07", "\x1bP1;2q\x1b\\", "\x9b31m",
    "\x9d0;t\x9c", "\x07", "\r", "a\rb", "\b\b\b", "\x7f", "\x85", "\n", "a\nb", "\t", "\v", "\f",
    "\x00", "\x0e", "\x1c", "\x1f", "\u2028", "\u2029", "\u202e", "\u202d", "\u202c", "\u2066",
    "\u2069", "\u200e", "\u061c", "\u200b", "\u200c", "\u200d", "\u2060", "\ufeff", "\u00ad",
    "\u034f", "\u3164", "\u115f", "\uffa0", "\u2800", "\ufe0f", "\U000e0041", "\U000e0100",
    "\u00a0", "\u3000", "\u180e", "\ue000", "\ufff9", "\U0001d173", "[/b]", "[bold]",
    "[red]x[/red]", "[link=http://x]", ":smile:", "\\[b]", "\x1b(0",
    "x\n2026-01-01T00:00:00Z INFO consumer forged",
    "\x1b[1A\x1b[2K", "i" * 256, "\x1bc", "\x1b]8;;http://x\x1b\\click\x1b]8;;\x1b\\",
]  # fmt: skip


def is_safe(text: str) -> bool:
    """Whether no character of a text does anything but stand where it is written."""
    return not any(unicodedata.category(each)[0] in "CZ" and each != " " for each in text)
