"""What goes wrong with Redis, in words that name the mending and never hold a password."""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Iterator

import redis
from redis.exceptions import (
    AuthenticationWrongNumberOfArgsError,
    InvalidResponse,
    NoPermissionError,
    RedisClusterException,
)

from process.errors import StreamGCNError
from process.settings import SettingsError

SERVING_RULE = "+get +set +mset +del +hset +hmget +scan +info"
CLUSTER_RULE = "+cluster|slots +command"
READER_RULE = "+get"
CLEAR_HERE = "Redis does not speak TLS at this port: write redis:// in REDIS_URL"
TLS_HERE = (
    "Redis speaks TLS at this port: write rediss:// in REDIS_URL, and with ?ssl_ca_certs=FILE the "
    "authority that signed its certificate"
)
_ANSWERS = (redis.AuthenticationError, NoPermissionError, InvalidResponse)
NO_COMMAND = re.compile(r"unknown (?:sub)?command:? ['`]?([\w|]+)|run the '([\w|]+)' command")


class RedisDown(StreamGCNError):
    """Redis does not answer; the text says why. No password is ever in it."""

    code = ""  # of the refusal


class RedisRefuses(RedisDown):
    """Redis answers and refuses; the text says what to do, `code` is the first word of its answer.

    Near its limit of memory it may take the next write again, and refuse the one after.
    """

    def __init__(self, text: str, code: str) -> None:
        super().__init__(text)
        self.code = code


class RedisMisconfigured(RedisRefuses, SettingsError):
    """Waiting does not mend it: REDIS_URL, a file that it names, or the rights of its user."""


def forbidden(error: Exception) -> str | None:
    """The command that this server does not let its user run, None if it is another error."""
    found = NO_COMMAND.search(str(error)) if isinstance(error, redis.ResponseError) else None
    return (found[1] or found[2]).upper() if found else None


def explained(error: Exception, secret: str, prefix: str) -> RedisDown:
    """The client's error in this project's words."""
    if wrong_tls := of_tls(error):
        return RedisMisconfigured(wrong_tls, "TLS")
    # The client of a Cluster tells first that it reached no node, then why.
    answers = (each for each in _causes(error) if isinstance(each, _ANSWERS))
    error = next(answers, error)
    text = str(error).replace(secret, "***") if secret else str(error)
    if command := forbidden(error):
        return RedisMisconfigured(
            f"Redis does not let its user run {command}: grant {prefix_rule(prefix)} "
            f"{SERVING_RULE} (a Cluster: {CLUSTER_RULE} too; who only reads lists: {READER_RULE}), "
            "or undo its rename-command",
            "NOPERM",
        )
    match error:
        case redis.OutOfMemoryError():
            return RedisRefuses(
                "Redis is out of memory: raise its maxmemory, or write less with a smaller "
                "STREAMGCN_TOP_K or a REDIS_TTL_SECONDS",
                "OOM",
            )
        case redis.ReadOnlyError():
            return RedisRefuses(
                "Redis is a read-only replica: name its primary in REDIS_URL", "READONLY"
            )
        case redis.AuthenticationError() | AuthenticationWrongNumberOfArgsError():
            return RedisMisconfigured(
                "Redis refuses the user and password that REDIS_URL gives or lacks: correct it",
                "NOAUTH",
            )
        case NoPermissionError():
            return RedisMisconfigured(
                f"Redis denies its user the keys: grant {prefix_rule(prefix)} ({text})", "NOPERM"
            )
        case InvalidResponse():
            return RedisMisconfigured(
                f"what answers at REDIS_URL is no Redis ({text[:80]!r}): correct it", "PROTOCOL"
            )
        case redis.BusyLoadingError():
            return RedisDown("Redis is loading its data")
        case redis.ConnectionError() | redis.TimeoutError() | RedisClusterException():
            return RedisDown(f"Redis does not answer: {text}")
        case _ if "DB index" in text or "SELECT is not allowed" in text:
            return RedisMisconfigured(
                f"Redis refuses the database that REDIS_URL names ({text}): correct it", "SELECT"
            )
        case _:
            code = getattr(error, "status_code", None) or text.partition(" ")[0]
            return RedisRefuses(f"Redis refuses: {text}", code)


def connected(error: Exception) -> bool:
    """Whether something listens at the address, of an error of the connection."""
    none = (socket.gaierror, ConnectionRefusedError, FileNotFoundError)
    return not any(isinstance(cause, none) for cause in _causes(error))


def prefix_rule(prefix: str) -> str:
    """The ACL pattern of the keys."""
    return f"~{prefix}:*"


def of_tls(error: BaseException) -> str | None:
    """What is wrong with the certificates, None if it is nothing of the kind."""
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return (
                f"the certificate of Redis is refused ({cause.verify_message}): REDIS_URL must "
                "name the host that is in the certificate, and with ?ssl_ca_certs=FILE the "
                "authority that signed it"
            )
        reason = (getattr(cause, "reason", None) or "") if isinstance(cause, ssl.SSLError) else ""
        if "ALERT" in reason and ("CERT" in reason or "UNKNOWN_CA" in reason):
            return (
                f"Redis refuses the certificate that REDIS_URL gives or lacks ({reason}): name one "
                "that it accepts with ?ssl_certfile=FILE&ssl_keyfile=FILE"
            )
        if "ALERT" in reason:
            return f"Redis refuses to speak TLS with this client ({reason}): see its tls settings"
        if reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"):
            return CLEAR_HERE
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error and id(error) not in seen:
        seen.add(id(error))
        yield error
        # The client keeps what the socket said as an argument at times.
        yield from (each for each in error.args if isinstance(each, BaseException))
        error = error.__cause__ or error.__context__
