"""Says which settings change nothing, as no part of the model reads them."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from trainer.model.hyperparameters import MODELS, Hyperparameters

log = logging.getLogger("trainer")

NAMES = {  # of settings that are variables
    "loss": "STREAMGCN_LOSS",
    "epochs": "STREAMGCN_EPOCHS",
    "dampening": "dampening (STREAMGCN_EDGE_WEIGHT=log)",
}
# A 0 of these switches something off; where nothing reads them, it is off anyway.
SWITCHES = {"recency", "dampening", "learned_order", *(part.weight for part in MODELS["blend"])}


def warn(settings: Hyperparameters) -> None:
    """Name what is set and changes nothing, whichever edges there are."""
    _warn(settings, settings.unread())


def warn_without_times(settings: Hyperparameters) -> None:
    """Name what else is set and changes nothing, as the edges have no times."""
    known = settings.unread()
    found = settings.unread(timed=False).items()
    _warn(settings, {name: why for name, why in found if name not in known})


def _warn(settings: Hyperparameters, unread: Mapping[str, str]) -> None:
    names: dict[str, list[str]] = {}  # by the reason
    usual = Hyperparameters()
    for name, why in unread.items():
        value = getattr(settings, name)
        if value != getattr(usual, name) and (value or name not in SWITCHES):
            names.setdefault(why, []).append(NAMES.get(name, name))
    if names:
        words = (f"{' and '.join(of)}, as {why}" for why, of in names.items())
        log.warning("These settings change nothing: %s.", "; ".join(words))
