"""TLS: the files that REDIS_URL names, and a port that speaks it where none is expected."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path
from typing import Any

from serving.redis.errors import CLEAR_HERE, TLS_HERE, RedisMisconfigured, of_tls

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


def cause_of_silence(arguments: dict[str, Any], encrypted: bool) -> str:
    """Why a server that listens gives the client no answer; nothing if it cannot be told.

    Args:
        arguments: of the client's connection.
        encrypted: whether REDIS_URL is rediss://.
    """
    if not arguments.get("host"):
        return ""  # a socket in the file system
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    address = str(arguments["host"]), int(arguments.get("port") or 6379)
    if not encrypted:
        return TLS_HERE if _handshake(address, context) is not None else ""
    if _answers_in_clear(address):
        return CLEAR_HERE
    if arguments.get("ssl_certfile"):
        password = str(arguments.get("ssl_password") or "")
        key = arguments.get("ssl_keyfile")
        context.load_cert_chain(arguments["ssl_certfile"], key, lambda: password)
    alert = _handshake(address, context)
    return (alert and of_tls(alert)) or ""


def _answers_in_clear(address: tuple[str, int]) -> bool:
    try:
        with socket.create_connection(address, SECONDS) as plain:
            plain.sendall(b"PING\r\n")
            return plain.recv(64).startswith((b"+", b"-"))
    except OSError:
        return False


def _handshake(address: tuple[str, int], context: ssl.SSLContext) -> Exception | None:
    """How a server that speaks TLS ends or holds the connection; None if it speaks none."""
    try:
        with socket.create_connection(address, SECONDS) as plain, context.wrap_socket(plain) as tls:
            tls.recv(1)  # an alert may come after the handshake
    except ssl.SSLError as error:
        return error if "ALERT" in (error.reason or "") else None
    except TimeoutError as error:
        return error if "handshake" not in str(error) else None
    except OSError:
        return None
    return EOFError("the server has closed the connection")
