"""Numbers as files write them: what stands where nothing is known, and commas before decimals."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

# In lower case: an empty field, and the words of databases and data frames, such as \N and NaT.
# Ids are never read so: NA may be one. NaN is a number that the consumer rejects, and no gap.
MARKS = pa.array(["", "\\n", "null", "none", "nat", "na", "n/a", "<na>"])


def without_gaps(column: pa.Array) -> pa.Array:
    """The column, null where it tells nothing; texts without the spaces around them."""
    if not pt.is_string(column.type):
        return column
    column = pc.utf8_trim_whitespace(column)
    return pc.if_else(pc.is_in(pc.utf8_lower(column), MARKS), None, column)


class DecimalCommas:
    """Whether a column of texts has its decimals after a comma, as in 4,5.

    A comma before three digits may stand between thousands, so it tells nothing by itself; one
    other comma in the column tells, if no number there has a point.
    """

    def __init__(self) -> None:
        self.found = False
        self.decided = False  # nothing further in the column can change that

    def look(self, column: pa.Array) -> None:
        """Look at the next rows of the column."""
        if self.decided or not pt.is_string(column.type):
            return
        column = without_gaps(column)
        points = pc.any(pc.match_substring(column, ".")).as_py()
        commas = pc.any(pc.match_substring(column, ",")).as_py()
        tells = pc.any(pc.match_substring_regex(column, r"^[+-]?\d+,(\d{1,2}|\d{4,})$")).as_py()
        self.found = not points and bool(self.found or tells)
        self.decided = bool(points or not (commas or self.found))
