"""Text from outside, made safe to show: ids, keys, reasons, names of files and columns, errors.

Whoever sends an event chooses these texts. Shown as they are, they could move a terminal's cursor,
colour it, set its title, turn the direction of a line, or begin a line of the log that no process
has written.
"""

from __future__ import annotations

import re

# Printable by Unicode's table, and yet nothing is seen of them (Default_Ignorable_Code_Point).
_UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)


def visible(text: str | bytes, limit: int | None = None) -> str:
    """The text on one line, with an escape such as \\x1b for each character that is not seen.

    Escaped are control characters, line ends, marks of direction, characters without a width,
    spaces other than the common one, and what is no UTF-8. What is visible already stays the same,
    so text that is made visible twice is escaped once.

    Args:
        text: bytes are taken for UTF-8.
        limit: characters to show at most; a longer text ends in "...".
    """
    if isinstance(text, bytes):
        # A character has up to 4 bytes; a value of megabytes is not decoded for its beginning.
        text = (text if limit is None else text[: 4 * limit + 4]).decode(errors="surrogateescape")
    cut = "..." if limit is not None and len(text) > limit else ""
    text = text[:limit]
    if not text.isprintable():
        text = "".join(each if each.isprintable() else _escaped(each) for each in text)
    return _UNSEEN.sub(lambda found: _escaped(found[0]), text) + cut


def visible_lines(text: str) -> str:
    """Text of several lines, such as a traceback: each visible, and indented by two spaces.

    No line of the log begins so, and thus no text can pass for one.
    """
    return "\n".join("  " + visible(line) for line in text.split("\n"))


def _escaped(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # a byte that is no UTF-8
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()
