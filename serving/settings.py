"""Settings of serving, on top of the trainer's: all settings there are."""

from __future__ import annotations

from pydantic import Field

from trainer.settings import TrainerSettings


class ServingSettings(TrainerSettings):
    """Where lists go and how long they are."""

    redis_url: str = Field(
        "redis://localhost:6379/0",
        pattern=r"^(redis|rediss|unix)://",
        repr=False,  # it may hold a password, so a file may hold it
        description="redis://, rediss:// (TLS) or unix://, with user and password; of a Redis "
        "Cluster any node.",
    )
    redis_prefix: str = Field(
        "streamgcn", min_length=1, description="Beginning of every key in Redis."
    )
    redis_ttl_seconds: int | None = Field(
        None,
        ge=1,
        description="Seconds after which a list expires that is not written again; unset: never. "
        "Set more than the time between two models.",
    )
    top_k: int = Field(
        50,
        ge=1,
        le=1_000,
        validation_alias="STREAMGCN_TOP_K",
        description="Items in a list, at most.",
    )
