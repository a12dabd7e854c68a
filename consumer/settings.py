"""Settings of the stream and the edge store, read from environment variables."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, field_validator

from consumer import path
from process.settings import ProcessSettings

SERVER = re.compile(r"([\w.-]+|\[[0-9A-Fa-f:.]+(%[\w.-]+)?\])(:(?P<port>\d{1,5}))?")


class ConsumerSettings(ProcessSettings):
    """What the consumer needs; the trainer's and serving's settings extend it."""

    kafka_bootstrap_servers: str = Field(
        "localhost:9092", min_length=1, description="Brokers, host:port, separated by commas."
    )
    kafka_topic: str = Field(
        "interactions", pattern=r"^[A-Za-z0-9._-]{1,200}$", description="Topic of the events."
    )
    kafka_group: str = Field(
        "streamgcn", min_length=1, description="Consumer group; serving adds -serving to the name."
    )
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL."
    )
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        "PLAIN", description="PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512."
    )
    kafka_sasl_username: str | None = Field(None, description="User name for SASL.")
    kafka_sasl_password: SecretStr | None = Field(
        None, repr=False, description="Password for SASL."
    )
    kafka_ssl_cafile: Path | None = Field(
        None, description="PEM file of the certificate authority to trust."
    )
    kafka_ssl_certfile: Path | None = Field(
        None, description="PEM file of the client's certificate."
    )
    kafka_ssl_keyfile: Path | None = Field(None, description="PEM file of the client's key.")
    kafka_ssl_password: SecretStr | None = Field(
        None, repr=False, description="Password of an encrypted key."
    )
    edge_store: str = Field(
        "./data/edges",
        min_length=1,
        description="Delta Lake table of events: a path, or s3://, gs:// or az:// with bucket and "
        "path.",
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
        description="Longest wait in seconds before a smaller batch is committed; up to a "
        "quarter of it is left out at random.",
    )
    log_format: Literal["text", "json"] = Field(
        "text",
        validation_alias="STREAMGCN_LOG_FORMAT",
        description="Form of the log: text or json.",
    )
    metrics_host: str = Field(
        "127.0.0.1",
        min_length=1,
        validation_alias="STREAMGCN_METRICS_HOST",
        description="Address of the port below; 0.0.0.0 or :: for all addresses of the machine.",
    )
    metrics_port: int = Field(
        0,
        ge=0,
        le=65_533,
        validation_alias="STREAMGCN_METRICS_PORT",
        description="Port of /metrics, /healthz and /readyz, 0 for none; `up` gives this port to "
        "the consumer, the next to the trainer, the one after to serving.",
    )
    retention_days: float | None = Field(
        None,
        gt=0,
        validation_alias="STREAMGCN_RETENTION_DAYS",
        description="Days after which an edge is removed, from its last event on; unset: never.",
    )

    @property
    def dead_letter_topic(self) -> str:
        """Topic of the rejected messages."""
        return f"{self.kafka_topic}.dead"

    @field_validator("edge_store")
    @classmethod
    def _place(cls, value: str) -> str:
        """The Delta library can keep a table there; else no process need wait for it."""
        path.check(value)
        return value

    @field_validator("kafka_bootstrap_servers")
    @classmethod
    def _addresses(cls, value: str) -> str:
        """Each is a host with or without a port; an IPv6 address stands in brackets."""
        for server in value.split(","):
            found = SERVER.fullmatch(server.strip())
            if not found or not 1 <= int(found["port"] or 9092) <= 65_535:
                raise ValueError(
                    f"{server.strip()!r} is no host:port; write host:9092, or [::1]:9092 of IPv6, "
                    "with commas between several"
                )
        return value
