"""Settings of the stream and the edge store, read from environment variables."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from consumer.errors import StreamGCNError


class SettingsError(StreamGCNError):
    """A setting has a value that is not allowed, or a name that does not exist."""


class ConsumerSettings(BaseSettings):
    """What the consumer needs; the trainer's and serving's settings extend it."""

    model_config = SettingsConfigDict(populate_by_name=True, extra="ignore", frozen=True)

    kafka_bootstrap_servers: str = Field(
        "localhost:9092", min_length=1, description="Brokers, host:port, separated by commas."
    )
    kafka_topic: str = Field(
        "interactions", pattern=r"^[A-Za-z0-9._-]{1,200}$", description="Topic of the events."
    )
    kafka_group: str = Field(
        "streamgcn", min_length=1, description="Consumer group; serving's is <group>-serving."
    )
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL."
    )
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        "PLAIN", description="PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512."
    )
    kafka_sasl_username: str | None = Field(None, description="User name for SASL.")
    kafka_sasl_password: SecretStr | None = Field(None, description="Password for SASL.")
    kafka_ssl_cafile: Path | None = Field(None, description="PEM file of the authority to trust.")
    kafka_ssl_certfile: Path | None = Field(None, description="PEM file of the own certificate.")
    kafka_ssl_keyfile: Path | None = Field(None, description="PEM file of the own key.")
    edge_store: str = Field(
        "./data/edges", min_length=1, description="Path or URI of the Delta Lake table of events."
    )
    commit_events: int = Field(
        100_000,
        ge=1,
        validation_alias="STREAMGCN_COMMIT_EVENTS",
        description="Events after which the consumer commits.",
    )
    commit_seconds: float = Field(
        1.0,
        gt=0,
        validation_alias="STREAMGCN_COMMIT_SECONDS",
        description="Seconds after which the consumer commits what it has.",
    )
    log_format: Literal["text", "json"] = Field(
        "text", validation_alias="STREAMGCN_LOG_FORMAT", description="text or json lines."
    )
    metrics_port: int = Field(
        0,
        ge=0,
        le=65_533,
        validation_alias="STREAMGCN_METRICS_PORT",
        description="Port of /metrics and /healthz, 0 for none; `up` gives the consumer this one, "
        "the trainer the next, serving the one after.",
    )
    retention_days: float | None = Field(
        None,
        gt=0,
        validation_alias="STREAMGCN_RETENTION_DAYS",
        description="Age by timestamp after which edges leave the edge store; unset: never.",
    )

    @classmethod
    def load(cls) -> Self:
        """Read the environment.

        Raises:
            SettingsError: naming the variable, its value and what is allowed.
        """
        _refuse_unknown(cls)
        try:
            return cls()
        except ValidationError as error:
            lines = [_sentence(cls, dict(detail)) for detail in error.errors()]
            raise SettingsError("; ".join(lines)) from None


def variable(cls: type[BaseSettings], field: str) -> str:
    """Name of the environment variable that sets `field` of `cls`."""
    alias = cls.model_fields[field].validation_alias
    return alias if isinstance(alias, str) else field.upper()


def variables(cls: type[BaseSettings]) -> Iterable[str]:
    """Names of all environment variables that `cls` reads."""
    return (variable(cls, field) for field in cls.model_fields)


def _sentence(cls: type[BaseSettings], detail: dict[str, object]) -> str:
    location = detail["loc"]
    name = str(location[0]) if isinstance(location, tuple) and location else "settings"
    name = variable(cls, name) if name in cls.model_fields else name
    value = repr(detail["input"])
    if "PASSWORD" in name or re.search(r":.*@|password=", value):  # a URL may carry a password
        value = "<hidden>"
    return f"{name}={value} is refused: {detail['msg']}"


def _refuse_unknown(cls: type[BaseSettings]) -> None:
    known = set(variables(cls))
    for name in sorted(os.environ):
        if not name.startswith("STREAMGCN_") or name in known:
            continue
        close = difflib.get_close_matches(name, [k for k in known if k.startswith("STREAMGCN_")], 1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise SettingsError(f"{name} is not a setting{hint}")
