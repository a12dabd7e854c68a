"""What all settings share: they are environment variables, and a wrong one is refused in words.

A secret may stand in a file instead, as Docker and Kubernetes give it: <VARIABLE>_FILE names it.

A new setting is a field of the first class that needs it, with a description: ProcessSettings here,
consumer/settings.py, trainer/settings.py or serving/settings.py; each has all of the ones before.
It also gets a row in README.md and stands in the help of the commands that streamgcn/cli/main.py
and settings_help.py name.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from process.errors import StreamGCNError

FILE = "_FILE"  # behind the name of a secret's variable
SECRET_BYTES = 65_536


class SettingsError(StreamGCNError):
    """A setting has a value that is not allowed, or a name that does not exist."""


class _SecretFiles(PydanticBaseSettingsSource):
    """The secrets that files hold: fields that are left out of the settings' representation."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """The content of the file that a secret's variable with _FILE names, None without one."""
        name = variable(self.settings_cls, field_name)
        file = None if field.repr else os.environ.get(name + FILE)
        return (None if file is None else _secret(name, file)), field_name, False

    def __call__(self) -> dict[str, Any]:
        """Field -> secret, of those that are in files."""
        fields = self.settings_cls.model_fields
        found = {name: self.get_field_value(field, name)[0] for name, field in fields.items()}
        return {name: secret for name, secret in found.items() if secret is not None}


class ProcessSettings(BaseSettings):
    """Settings that are read from environment variables, and secrets from files too."""

    model_config = SettingsConfigDict(populate_by_name=True, extra="ignore", frozen=True)
    # Variables of earlier versions -> what to do instead; VALUE stands for the variable's value.
    removed: ClassVar[Mapping[str, str]] = {}

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003  # called by name
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003  # called by name
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment, and the files of secrets that it names."""
        return init_settings, env_settings, _SecretFiles(settings_cls)

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


def is_set(env: Mapping[str, str], name: str) -> bool:
    """Whether an environment sets a variable, itself or by a file."""
    return name in env or name + FILE in env


def variables(cls: type[BaseSettings]) -> Iterable[str]:
    """Names of all environment variables that `cls` reads."""
    return (variable(cls, field) for field in cls.model_fields)


def _sentence(cls: type[BaseSettings], detail: dict[str, object]) -> str:
    location = detail["loc"]
    name = str(location[0]) if isinstance(location, tuple) and location else "settings"
    name = variable(cls, name) if name in cls.model_fields else name
    value = repr(detail["input"])
    if name + FILE in os.environ:
        return f"{name}, read from {os.environ[name + FILE]}, is refused: {detail['msg']}"
    if "PASSWORD" in name or re.search(r":.*@|password=", value):  # a URL may carry a password
        value = "<hidden>"
    return f"{name}={value} is refused: {detail['msg']}"


def _secret(name: str, file: str) -> str:
    """What a file of a secret holds, without the end of its line.

    Raises:
        SettingsError: the variable is set as well, or the file cannot be read or is empty.
    """
    if name in os.environ:
        raise SettingsError(f"{name} and {name}{FILE} are both set; unset one of them")
    named = f"{name}{FILE}={file} is refused:"
    path = Path(file)
    try:
        if path.exists() and not path.is_file():
            raise SettingsError(f"{named} it is not a file")
        content = path.read_bytes()
    except OSError as error:
        raise SettingsError(f"{named} {error.strerror}") from None
    if len(content) > SECRET_BYTES:
        raise SettingsError(f"{named} it has more than {SECRET_BYTES} bytes")
    try:
        secret = content.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise SettingsError(f"{named} it is not UTF-8") from None
    if not secret:
        raise SettingsError(f"{named} it is empty")
    return secret


def _refuse_bytes(cls: type[BaseSettings]) -> None:
    for name in variables(cls):
        try:
            os.environ.get(name, "").encode()
        except UnicodeEncodeError:
            raise SettingsError(f"{name} is not UTF-8") from None


def _refuse_unknown(cls: type[ProcessSettings]) -> None:
    known = set(variables(cls))
    for name in sorted(os.environ):
        if not name.startswith("STREAMGCN_") or name in known:
            continue
        if name in cls.removed:
            value = os.environ[name]
            instead = cls.removed[name].replace("VALUE", value)
            raise SettingsError(f"{name}={value!r} is no setting any more; {instead}")
        close = difflib.get_close_matches(name, [k for k in known if k.startswith("STREAMGCN_")], 1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise SettingsError(f"{name} is not a setting{hint}")
