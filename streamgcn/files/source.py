"""Where bytes come from: files, patterns of file names, standard input; compressed or not.

What a file is, its first bytes tell; of its name only the endings of JSON, text and Parquet count.
"""

from __future__ import annotations

import glob
import io
import os
import shutil
import stat
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

import pyarrow as pa

from process.errors import StreamGCNError
from process.text import visible

Kind = Literal["text", "json", "parquet"]
STDIN = "-"
HEAD = 65_536  # bytes that are looked at
COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\x28\xb5\x2f\xfd": "zstd"}
OTHERS = {
    b"PK\x03\x04": "zip archive or a spreadsheet", b"\xfd7zXZ": "xz file", b"7z\xbc": "7z archive",
    b"%%MatrixMarket": "Matrix Market file",
}  # fmt: skip
ENDINGS = (".gz", ".bz2", ".zst")
TEXT = (".csv", ".tsv", ".dat", ".data")
MARKS = (  # that begin a text, and its encoding; the longer ones first
    (b"\xff\xfe\x00\x00", "utf-32"), (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"),
)  # fmt: skip


class FileError(StreamGCNError):
    """A file of interactions cannot be read; the text names the file, the place and the fix."""


@dataclass(frozen=True)
class InputFile:
    """A regular file.

    Attributes:
        name: how it is called in messages.
        codec: Arrow's name of the compression, None for none.
        head: the first bytes, unpacked.
    """

    path: Path
    name: str
    codec: str | None
    head: bytes

    def open(self) -> IO[bytes]:
        """The bytes, unpacked, from the first."""
        return _opened(self.path, self.codec)

    @property
    def mark(self) -> str | None:
        """The encoding that a byte order mark tells."""
        return next((name for mark, name in MARKS if self.head.startswith(mark)), None)

    def kind(self, encoding: str) -> Kind:
        """What the file holds, if its text is of this encoding.

        Raises:
            FileError: it holds nothing, or nothing that is read here.
        """
        if self.head.startswith(b"PAR1"):
            return "parquet"
        name = self.path.name.lower()
        for ending in ENDINGS:
            name = name.removesuffix(ending)
        if name.endswith((".parquet", ".pq")):
            raise FileError(f"{self.name} is no Parquet file: it does not begin with PAR1")
        for magic, what in OTHERS.items():
            if self.head.startswith(magic):
                raise FileError(f"{self.name} is a {what}; give its rows as CSV or Parquet")
        text = self.head.decode(encoding, errors="ignore")
        if "\0" in text:
            raise FileError(
                f"{self.name} holds NUL bytes, so it is no text in {encoding}; give CSV, JSON "
                "lines or Parquet, or the encoding with --encoding, as in utf-16-le"
            )
        begin = text.lstrip("\ufeff \t\r\n")[:1]
        if not begin:
            raise FileError(f"{self.name} is empty; give a file with rows")
        return "json" if begin in "{[" and not name.endswith(TEXT) else "text"


def input_files(names: list[str], folder: Path) -> list[InputFile]:
    """The files that paths, patterns of paths and `-` stand for, each pattern's in order.

    What cannot be read twice, such as standard input, is copied into `folder` first.

    Raises:
        FileError: there is no such file, or it cannot be read.
    """
    return [_source(name, folder, number) for number, name in enumerate(_expanded(names))]


def _expanded(names: list[str]) -> list[str]:
    found = []
    for name in names:
        if name == STDIN or os.path.exists(name) or not glob.has_magic(name):
            found.append(name)
            continue
        matching = sorted(glob.glob(name, recursive=True))
        if not matching:
            raise FileError(f"no file is named like {visible(name)}")
        found += matching
    return found


def _source(name: str, folder: Path, number: int) -> InputFile:
    shown = "standard input" if name == STDIN else visible(name)
    path = folder / f"copy-{number}"
    try:
        if name == STDIN:
            if sys.stdin is None:
                raise FileError("standard input is closed; give a file, or rows there")
            with path.open("wb") as copy:
                shutil.copyfileobj(sys.stdin.buffer, copy)
        elif stat.S_ISDIR(mode := os.stat(name).st_mode):
            raise FileError(f"{shown} is a folder; name the files, as in '{shown}/*.csv'")
        elif stat.S_ISREG(mode):
            path = Path(name)
        else:
            with open(name, "rb") as stream, path.open("wb") as copy:
                shutil.copyfileobj(stream, copy)
        with path.open("rb") as raw:
            head = raw.read(8)
        codec = next((c for magic, c in COMPRESSED.items() if head.startswith(magic)), None)
        with _opened(path, codec) as stream:
            return InputFile(path, shown, codec, stream.read(HEAD))
    except (OSError, ValueError) as error:
        raise FileError(f"{shown} cannot be read: {visible(_cause(error))}") from error


def _opened(path: Path, codec: str | None) -> IO[bytes]:
    if codec is None:
        return path.open("rb")
    return io.BufferedReader(pa.CompressedInputStream(pa.OSFile(os.fspath(path)), codec))


def _cause(error: Exception) -> str:
    return str((error.strerror if isinstance(error, OSError) else None) or error)
