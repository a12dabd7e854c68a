"""Files that are whole or not there, and still there after a power cut."""

from __future__ import annotations

import errno
import os
from pathlib import Path

NO_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EBADF)  # what volumes say that cannot sync a folder


def sync(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on the disk.

    Raises:
        OSError: the disk refuses.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in NO_SYNC or not path.is_dir():
            raise
    finally:
        os.close(handle)


def replace(draft: Path, path: Path) -> None:
    """Put a finished draft in the place of `path`; both are in one folder.

    Raises:
        OSError: the disk refuses; `path` is as it was.
    """
    sync(draft)
    draft.replace(path)
    sync(path.parent)


def write(path: Path, content: bytes) -> None:
    """Write a file in the place of the one that is there, if any.

    Raises:
        OSError: the disk refuses; `path` is as it was.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.draft")
    try:
        draft.write_bytes(content)
        replace(draft, path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise
