"""The file of STREAMGCN_MODEL_FILE: numbers of the model that are not to be chosen.

The file is TOML, with the names that the settings in a manifest have, such as `vectors = 512`.
"""

from __future__ import annotations

import difflib
import logging
import math
import tomllib
from collections.abc import Set
from dataclasses import replace
from pathlib import Path

from process.settings import SettingsError
from trainer.model.hyperparameters import SETTINGS, Hyperparameters
from trainer.model.learned import LIGHTGCN

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

    Raises:
        SettingsError: as `read`; the file contradicts the settings or itself; no part of the model
            is left.
    """
    values = read(path)
    made = replace(settings, **values)  # type: ignore[arg-type]  # by name
    if settings.dampening not in (None, made.dampening):
        raise SettingsError(
            f"dampening = {made.dampening:g} in {path} contradicts STREAMGCN_EDGE_WEIGHT; leave "
            "one out"
        )
    if not made.parts:
        raise SettingsError(f"all weights in {path} are 0; leave one out or set it above 0")
    return made if made.one_part or made.learned_weight == 0 else _kind(path, made, values.keys())


def _kind(path: Path, settings: Hyperparameters, names: Set[str]) -> Hyperparameters:
    """The settings with the kind of the learned part that the names in a file tell of.

    A file of a version that knew LightGCN alone has no learned_order, but numbers that next items
    do not read: the learned part stays LightGCN.
    """
    told = sorted(LIGHTGCN & names)
    if settings.learned_order:
        told += [] if settings.predicts_next else [f"STREAMGCN_LOSS={settings.loss}"]
        if told:
            raise SettingsError(
                f"learned_order = 1 in {path} contradicts {' and '.join(told)}, with which the "
                "learned part is LightGCN; leave one or the other out"
            )
    if not told or settings.learned_order is not None:
        return settings
    if settings.predicts_next:
        log.warning(
            "The learned part is LightGCN, as one that predicts next items does not read %s. "
            "Remove this from %s to have next items, or add the line learned_order = 0 to keep "
            "LightGCN.", " and ".join(told), path,
        )  # fmt: skip
    return replace(settings, learned_order=0.0)


def written(settings: Hyperparameters) -> str:
    """The settings as such a file, without what the model does not read."""
    used = {name for part in settings.parts for name in part.names - part.unread(settings).keys()}
    numbers = used | {name for name in SETTINGS if name.endswith("_weight")}
    values = {name: getattr(settings, name) for name in SETTINGS if name in numbers}
    lines = [f"{name} = {value}" for name, value in values.items() if value is not None]
    if settings.epochs and "epochs" in used:
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
