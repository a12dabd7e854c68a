"""Where an edge store may lie."""

from __future__ import annotations

import os
import re

from process.settings import SettingsError

# In the Delta library these characters end in a panic, and an escape such as %20 is taken for the
# character that it stands for: part of the table would then lie in another folder.
REFUSED = re.compile(r"[\[\]^|\\\x00-\x1f\x7f]|%[0-9A-Fa-f]{2}")


def check(uri: str, given: str = "") -> None:
    """Refuse a path below which the Delta library cannot keep a table.

    Args:
        given: what the user has given, EDGE_STORE if empty.

    Raises:
        SettingsError: naming the characters.
    """
    if "://" in uri and not uri.startswith("file:"):
        return
    path = uri if uri.startswith("file:") else os.path.abspath(uri)
    found = REFUSED.search(path)
    if found:
        raise SettingsError(
            f"{given or f'EDGE_STORE={uri!r}'} is refused: the path {path!r} holds {found[0]!r}, "
            "and the Delta library keeps no table below such a folder; take one without "
            "[ ] ^ | \\, control characters and escapes such as %20"
        )
