"""Settings of serving, on top of the trainer's: all settings there are."""

from __future__ import annotations

from pydantic import Field

from trainer.settings import TrainerSettings


class ServingSettings(TrainerSettings):
    """Where lists go and how long they are."""

    redis_url: str = Field(
        "redis://localhost:6379/0",
        pattern=r"^(redis|rediss|unix)://",
        description="redis://, rediss:// or unix://, with user and password if need be.",
    )
    redis_prefix: str = Field(
        "streamgcn", min_length=1, description="What every key in Redis begins with."
    )
    top_k: int = Field(
        50, ge=1, le=1_000, validation_alias="STREAMGCN_TOP_K", description="Items in a list."
    )
