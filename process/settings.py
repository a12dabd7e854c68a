"""What all settings share: they are environment variables, and a wrong one is refused in words."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable
from typing import Self

from pydantic import ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from process.errors import StreamGCNError


class SettingsError(StreamGCNError):
    """A setting has a value that is not allowed, or a name that does not exist."""


class ProcessSettings(BaseSettings):
    """Settings that are read from environment variables."""

    model_config = SettingsConfigDict(populate_by_name=True, extra="ignore", frozen=True)

    @classmethod
    def load(cls) -> Self:
        """Read the environment.

        Raises:
            SettingsError: naming the variable, its value and what is allowed.
        """
        _refuse_unknown(cls)
        _refuse_bytes(cls)
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


def _refuse_bytes(cls: type[BaseSettings]) -> None:
    for name in variables(cls):
        try:
            os.environ.get(name, "").encode()
        except UnicodeEncodeError:
            raise SettingsError(f"{name} is not UTF-8") from None


def _refuse_unknown(cls: type[BaseSettings]) -> None:
    known = set(variables(cls))
    for name in sorted(os.environ):
        if not name.startswith("STREAMGCN_") or name in known:
            continue
        close = difflib.get_close_matches(name, [k for k in known if k.startswith("STREAMGCN_")], 1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise SettingsError(f"{name} is not a setting{hint}")
