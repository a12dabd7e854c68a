"""How the files of a command are to be read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from process.text import visible
from streamgcn.files.columns import Columns
from streamgcn.files.source import FileError


@dataclass(frozen=True)
class Options:
    """The options of a command that reads files.

    Attributes:
        columns: which column holds what.
        names: of the columns of text files without a header, in order.
        separator, encoding: of text files; None to find them.
        timestamp_format: of strptime, which all times have; None to tell by themselves.
        skip_invalid: whether rows that are no events are left out.
    """

    columns: Columns = field(default_factory=Columns)
    names: Sequence[str] = ()
    separator: str | None = None
    encoding: str | None = None
    timestamp_format: str | None = None
    skip_invalid: bool = False

    def check(self) -> None:
        """Raise FileError for an encoding or a form of times that there is not."""
        if self.encoding:
            try:
                "".encode(self.encoding)
            except (LookupError, ValueError):
                raise FileError(
                    f"--encoding {visible(self.encoding)} is no encoding of text; latin-1, cp1252 "
                    "and utf-16 are"
                ) from None
        if self.timestamp_format:
            form, now = self.timestamp_format, datetime.now(UTC)
            try:
                datetime.strptime(now.strftime(form), form)
            except (ValueError, re.error) as error:
                why = visible(str(error))
                raise FileError(
                    f"--timestamp-format {visible(form)} is no form of times ({why}); "
                    "'%d/%m/%Y %H:%M' is one"
                ) from None
