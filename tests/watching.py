"""Asking the endpoint of a process."""

from __future__ import annotations

import urllib.error
import urllib.request

from tests.services import PATIENCE


def get(port: int, path: str, host: str = "127.0.0.1") -> tuple[int, str]:
    """Status and text of an answer; 0 and nothing while nobody listens."""
    try:
        with urllib.request.urlopen(f"http://{host}:{port}{path}", timeout=PATIENCE) as answer:
            return answer.status, str(answer.read(), "utf8")
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, str(refused.read(), "utf8")
    except urllib.error.URLError as error:
        if isinstance(error.reason, ConnectionRefusedError):
            return 0, ""
        raise
