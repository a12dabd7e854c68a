"""A text file: the encoding that it has, and its lines."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator
from contextlib import contextmanager

from streamgcn.files.source import FileError, InputFile

LONGEST = 16 * 1024 * 1024  # bytes of a line
BLOCK = 1024 * 1024
FALLBACK = "latin-1"  # of text that is no UTF-8: every byte is a character of it


def encoding_of(source: InputFile, given: str | None = None) -> str:
    """The encoding of a text: the given one, that of the mark at its begin, UTF-8, or latin-1.

    Raises:
        FileError: a line is longer than LONGEST, so that it should not be read into memory.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    is_utf8, since_end = True, 0
    with source.open() as stream:
        while block := stream.read(BLOCK):
            end = max(block.rfind(b"\n"), block.rfind(b"\r"))
            since_end = len(block) - end - 1 + (since_end if end < 0 else 0)
            if since_end > LONGEST:
                raise FileError(
                    f"{source.name} has a line of more than {LONGEST} bytes; write each row in a "
                    "line of its own (JSON: one object in each line), or give a Parquet file"
                )
            try:
                is_utf8 = is_utf8 and decoder.decode(block) is not None
            except UnicodeDecodeError:
                is_utf8 = False
    return given or source.mark or ("utf-8" if is_utf8 and not decoder.getstate()[0] else FALLBACK)


@contextmanager
def opened(source: InputFile, encoding: str) -> Iterator[Iterator[str]]:
    """The lines with their ends, which may be LF, CRLF or CR.

    Raises:
        FileError: the text is not of this encoding.
    """
    try:
        with source.open() as raw, io.TextIOWrapper(raw, encoding, newline="") as text:
            yield text
    except UnicodeError as error:
        raise FileError(
            f"{source.name} is not {encoding}: {error}; name its encoding with --encoding"
        ) from None
