"""All of a command's files, read, checked and put in order."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from process.text import visible
from streamgcn.files.block import FileReader
from streamgcn.files.columns import Roles, choose, listed
from streamgcn.files.delimited import Delimited
from streamgcn.files.events import events, survey
from streamgcn.files.moments import Found
from streamgcn.files.objects import Objects
from streamgcn.files.options import Options
from streamgcn.files.ordered import Ordered
from streamgcn.files.parquet import Parquet
from streamgcn.files.source import FileError, InputFile, input_files
from streamgcn.files.text import encoding_of

log = logging.getLogger("files")
PROGRESS_EVERY = 5.0  # seconds between two lines while files are read
NAMED = 5  # wrong rows that a message names


@dataclass
class Loaded:
    """The events of all files.

    Attributes:
        notes: what was read from where, a line for each kind of file, and what else was assumed.
        rows: rows of the files, the wrong ones included.
        wrong: how many of them are no events.
        named: the first of these, with the reasons.
    """

    options: Options
    events: Ordered
    notes: list[str] = field(default_factory=list)
    rows: int = 0
    wrong: int = 0
    named: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.events)

    def refuse_wrong(self) -> None:
        """Raise FileError if there are wrong rows that are not to be left out, or no others."""
        if self.wrong and not len(self.events):
            raise FileError(f"{self._said()}; is it the right file, are these the right columns?")
        if self.wrong and not self.options.skip_invalid:
            raise FileError(f"{self._said()}; mend them, or leave them out with --skip-invalid")

    def _note_wrong(self) -> None:
        if self.wrong and self.options.skip_invalid:
            self.notes.append(f"Left out: {self._said()}.")

    def _said(self) -> str:
        what = "is no event" if self.wrong == 1 else "are no events"
        more = "; ..." if self.wrong > len(self.named) else ""
        return f"{self.wrong} of {self.rows} rows {what} ({'; '.join(self.named)}{more})"

    def blocks(self, default_ms: int) -> Iterator[pa.Table]:
        """See Ordered.blocks."""
        return self.events.blocks(default_ms)

    def table(self) -> pa.Table:
        """All events in memory; those without a time are of now, or of 1970 if none has one.

        Raises:
            FileError: there are none.
        """
        blocks = list(self.blocks(int(time.time() * 1000) if self.events.timed else 0))
        if not blocks:
            raise FileError("the file has no rows")
        return pa.concat_tables(blocks)


@contextmanager
def load(names: list[str], options: Options | None = None) -> Iterator[Loaded]:
    """Read files; what is read lies in a temporary folder until the end.

    Raises:
        FileError: a file cannot be read, or it is not clear how.
    """
    options = options or Options()
    options.check()
    with (
        tempfile.TemporaryDirectory(prefix="streamgcn-") as folder,
        Ordered(Path(folder)) as ordered,
    ):
        loaded = Loaded(options, ordered)
        found = input_files(names, Path(folder))
        said: dict[str, list[str]] = {}
        missing, uncounted = 0, 0
        for source in found:
            try:
                sentence, seen = _add(source, loaded, len(found) > 1)
            except (OSError, pa.ArrowException) as error:
                raise FileError(f"{source.name} cannot be read: {visible(str(error))}") from error
            said.setdefault(sentence, []).append(source.name)
            missing += seen.missing
            uncounted += seen.uncounted
        loaded.notes += [f"{_several(files)}: {sentence}." for sentence, files in said.items()]
        if missing:
            rows = "row has no time and gets" if missing == 1 else "rows have no time and get"
            loaded.notes.append(f"{missing} {rows} the time of now.")
        if uncounted:
            rows = (
                "row has no interaction and counts"
                if uncounted == 1
                else ("rows have no interaction and count")
            )
            loaded.notes.append(f"{uncounted} {rows} 1.")
        loaded._note_wrong()
        yield loaded


def table(file: Path) -> pa.Table:
    """The events of one file that has the usual columns; see Loaded.table."""
    with load([str(file)]) as loaded:
        loaded.refuse_wrong()
        return loaded.table()


def _add(source: InputFile, loaded: Loaded, several: bool) -> tuple[str, Found]:
    """Read one file; returns what was read from where, and what was found in its values."""
    options, times = loaded.options, Found()
    rows = _open(source, options)
    roles = choose(source.name, rows.names, options.columns, bool(options.names))
    known = survey(source.name, rows, roles, options.timestamp_format)
    told = time.monotonic()
    for read in events(source.name, rows, roles, known, options.timestamp_format, times):
        loaded.events.add(read.table)
        loaded.rows += len(read.table) + len(read.wrong)
        loaded.wrong += len(read.wrong)
        if time.monotonic() - told >= PROGRESS_EVERY:
            told = time.monotonic()
            log.info("%d rows read.", loaded.rows)
        for wrong in read.wrong[: NAMED - len(loaded.named)]:
            where = f"{source.name} " if several or not loaded.named else ""
            loaded.named.append(f"{where}{rows.counted} {wrong.number}: {wrong.reason}")
    unused = [name for name in rows.names if name and name not in roles.used()]
    notes = [_used(roles, times, known.whole), *rows.notes]
    if known.comma and roles.interaction is not None:
        notes.append(f"{visible(roles.interaction)} with a comma before the decimals")
    if unused:
        notes.append(f"not used: {listed(unused)}")
    return "; ".join(notes), times


def _open(source: InputFile, options: Options) -> FileReader:
    kind = source.kind(options.encoding or source.mark or "utf-8")
    if kind == "parquet":
        return Parquet(source)
    encoding = encoding_of(source, options.encoding)
    if kind == "json":
        return Objects(source, encoding)
    return Delimited(source, encoding, options.columns, options.names, options.separator)


def _used(roles: Roles, times: Found, whole: frozenset[str]) -> str:
    forms = times.forms.most_common()
    said = " " + " and ".join(f"{form} ({n})" if len(forms) > 1 else form for form, n in forms)
    if times.zoneless:
        said += " without a zone, taken for UTC"
    sentence = roles.sentence(said.rstrip())
    for name in sorted(whole & {roles.user, roles.item}):
        sentence += f"; {name} as whole numbers, without .0"
    return sentence


def _several(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
