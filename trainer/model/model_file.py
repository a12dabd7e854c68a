"""The file of STREAMGCN_MODEL_FILE: numbers of the model that are not to be chosen.

The file is TOML, with the names that the settings in a manifest have, such as `vectors = 512`.
"""

from __future__ import annotations

import difflib
import logging
import math
import tomllib
from dataclasses import replace
from pathlib import Path

from process.settings import SettingsError
from trainer.model.hyperparameters import LIGHTGCN, SETTINGS, Hyperparameters

log = logging.getLogger("trainer")

VARIABLES = ("model", "loss", "device", "epochs")  # numbers and words that are variables


def read(path: Path) -> dict[str, float]:
    """The numbers of a file, by name.

    Raises:
        SettingsError: the file cannot be read, is no TOML, or has a name or a value that is not
            allowed; the text names both.
    """
    try:
        found = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"STREAMGCN_MODEL_FILE={path} cannot be read: {error}") from None
    return {name: _number(path, name, value) for name, value in found.items()}


def filled_by(path: Path, settings: Hyperparameters) -> Hyperparameters:
    """The settings with the numbers of a file.

    A file of a version that knew LightGCN alone has no learned_order, but numbers that only
    LightGCN reads: the learned part stays LightGCN.

    Raises:
        SettingsError: as `read`; the file contradicts the settings; no part of the model is left.
    """
    values = read(path)
    told = sorted(LIGHTGCN & values.keys())
    if told and "learned_order" not in values:
        values["learned_order"] = 0.0
        if settings.predicts_next and values.get("learned_weight") != 0:
            log.info(
                "%s in %s %s for LightGCN alone, so the learned part is LightGCN. The line "
                "`learned_order = 0` or `learned_order = 1` says which learned part it is.",
                " and ".join(told), path, "are" if len(told) > 1 else "is",
            )  # fmt: skip
    dampening = values.get("dampening", settings.dampening)
    if settings.dampening not in (None, dampening):
        raise SettingsError(
            f"dampening = {dampening:g} in {path} contradicts STREAMGCN_EDGE_WEIGHT; leave one out"
        )
    made = replace(settings, **values)  # type: ignore[arg-type]  # by name
    if not made.parts:
        raise SettingsError(f"all weights in {path} are 0; leave one out or set it above 0")
    return made


def written(settings: Hyperparameters) -> str:
    """The settings as such a file, without numbers that the model does not read."""
    used = {name for part in settings.parts for name in part.names}
    used |= {name for name in SETTINGS if name.endswith("_weight")}
    used -= LIGHTGCN if settings.predicts_next else set()
    values = {name: getattr(settings, name) for name in SETTINGS if name in used}
    lines = [f"{name} = {value}" for name, value in values.items() if value is not None]
    if settings.epochs:
        lines.append(f"# and the variable STREAMGCN_EPOCHS={settings.epochs}")
    return "\n".join(lines) + "\n"


def _number(path: Path, name: str, value: object) -> float:
    if name not in SETTINGS:
        if name in VARIABLES:
            hint = f"; set STREAMGCN_{name.upper()} instead"
        else:
            close = difflib.get_close_matches(name, SETTINGS, 1)
            hint = f"; did you mean {close[0]}?" if close else ""
        raise SettingsError(f"{name} in {path} is not a number of the model{hint}")
    refused = f"{name} = {value} in {path} is refused: "
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise SettingsError(f"{refused}it must be a number")
    of = SETTINGS[name]
    if of.whole and value != int(value):
        raise SettingsError(f"{refused}it must be a whole number")
    if why := of.refusal(value):
        raise SettingsError(refused + why)
    return int(value) if of.whole else float(value)
