"""TLS: the files that REDIS_URL names, and a port that speaks it where none is expected."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path
from typing import Any

from serving.redis.errors import RedisMisconfigured

FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
SECONDS = 1.0  # for the question what listens at the address


def check_files(arguments: dict[str, Any]) -> None:
    """Raises RedisMisconfigured where a file of a certificate or key is missing or none."""
    named = {name: str(arguments[name]) for name in FILES if arguments.get(name)}
    for name, file in named.items():
        try:
            with Path(file).open("rb"):
                pass
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or error
            raise RedisMisconfigured(
                f"REDIS_URL names {name}={file}, which cannot be read: {why}", "FILE"
            ) from None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        if "ssl_ca_certs" in named:
            context.load_verify_locations(named["ssl_ca_certs"])
    except (ssl.SSLError, ValueError):
        raise RedisMisconfigured(
            f"REDIS_URL names ssl_ca_certs={named['ssl_ca_certs']}, which holds no certificate "
            "in PEM form",
            "FILE",
        ) from None
    if "ssl_certfile" not in named:
        return
    try:
        password = arguments.get("ssl_password") or ""
        context.load_cert_chain(
            named["ssl_certfile"], named.get("ssl_keyfile"), lambda: str(password)
        )
    except (ssl.SSLError, ValueError):
        raise RedisMisconfigured(
            f"REDIS_URL names ssl_certfile={named['ssl_certfile']}, but certificate and key do not "
            "belong together, are not in PEM form, or the key wants another ssl_password",
            "FILE",
        ) from None


def other_protocol(arguments: dict[str, Any], encrypted: bool) -> str:
    """What is wrong with REDIS_URL's scheme; nothing if it cannot be told."""
    address = arguments.get("host"), int(arguments.get("port") or 6379)
    try:
        with socket.create_connection(address, SECONDS) as plain:
            plain.settimeout(SECONDS)
            if encrypted:
                plain.sendall(b"PING\r\n")
                answer = plain.recv(64)
                if answer.startswith((b"+", b"-")):
                    return "Redis does not speak TLS at this port: write redis:// in REDIS_URL"
                return ""
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            with context.wrap_socket(plain):
                pass
    except ssl.SSLError as error:
        if "ALERT" not in (error.reason or ""):
            return ""
    except (OSError, ValueError, TypeError):
        return ""
    return (
        "Redis speaks TLS at this port: write rediss:// in REDIS_URL, and with "
        "?ssl_ca_certs=FILE the authority that signed its certificate"
    )
