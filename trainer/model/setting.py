"""What there is to say of each number of the model, beside the number; loads no torch."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any


@dataclass(frozen=True)
class Setting:
    """One number of the model.

    meaning: for the documentation. usual: the value where nothing is chosen, None for a number that
    is never chosen. usual_next: the value in the place of `usual` where the learned part predicts
    next items, None where both kinds of learned part have the same value. least, most: bounds,
    which are allowed; above, below: bounds, which are not. whole: whether it must be a whole
    number. switch: whether it must be 0 or 1. lightgcn: whether LightGCN reads it and a learned
    part that predicts next items does not. before: the value of models that did not have it yet.
    """

    meaning: str
    usual: float | None = None
    usual_next: float | None = None
    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None
    whole: bool = False
    switch: bool = False
    lightgcn: bool = False
    before: float | None = None

    def refusal(self, value: float) -> str:
        """Why the value is not allowed, or nothing."""
        if self.switch and value not in (0, 1):
            return "it must be 0 or 1"
        if self.least is not None and not value >= self.least:
            return f"it must be at least {self.least:g}"
        if self.most is not None and not value <= self.most:
            return f"it must be at most {self.most:g}"
        if self.above is not None and not value > self.above:
            return f"it must be above {self.above:g}"
        if self.below is not None and not value < self.below:
            return f"it must be below {self.below:g}"
        return ""


def setting(meaning: str, default: Any = None, **of: Any) -> Any:
    """A field of a dataclass that is a `Setting`; without a default it is chosen."""
    return field(default=default, metadata={"setting": Setting(meaning, **of)})


def settings_of(kind: type) -> dict[str, Setting]:
    """The settings of a dataclass, by name."""
    return {
        f.name: replace(f.metadata["setting"], whole=str(f.type).startswith("int"))
        for f in fields(kind)
        if "setting" in f.metadata
    }
