"""The search over the grid of one part, round by round."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from trainer.model.hyperparameters import AnyPart, Hyperparameters
from trainer.model.part import Fitted, Round, Values

Fit = Callable[[Hyperparameters], Fitted[Hyperparameters]]
Look = Callable[[Fitted[Hyperparameters], Hyperparameters], float]


class Search:
    """What was looked at, and the best so far."""

    def __init__(self, part: AnyPart, given: Hyperparameters, fit: Fit, look: Look) -> None:
        """Args:
        given: what is set or chosen already.
        fit: fits the part with settings.
        look: measures the part as it was fitted, with settings of the scores.
        """
        self._part, self._given, self._fresh, self._look = part, given, fit, look
        self.best = self._given.usual()
        self._figures: dict[Hyperparameters, float] = {}
        self._last: Fitted[Hyperparameters] | None = None
        self._leading: tuple[float, Fitted[Hyperparameters] | None] = (-1.0, None)
        self._varied: set[str] = set()

    def round(self, each: Round) -> None:
        """Keep the best of a round's values; where there is but one, without a look."""
        self._varied |= set(each.names)
        tries = self.settings(each)
        if len(tries) > 1:
            figures = [self.figure(replace(s, **each.meanwhile)) for s in tries]
            self.best = tries[figures.index(max(figures))]
        else:
            [self.best] = tries

    def settings(self, each: Round, force: bool = False) -> list[Hyperparameters]:
        """The best settings so far with the values of a round, without doubles.

        Args:
            force: also where the user has set something else.
        """
        return list(dict.fromkeys(self._with(each.names, values, force) for values in each.tries))

    def _with(self, names: tuple[str, ...], values: Values, force: bool) -> Hyperparameters:
        free = {
            name: value
            for name, value in zip(names, values, strict=True)
            if force or getattr(self._given, name) is None
        }
        return replace(self.best, **free)  # type: ignore[arg-type]  # by name

    def figure(self, settings: Hyperparameters) -> float:
        """NDCG of the part with these settings, looked at once."""
        if settings not in self._figures:
            self._last = self._fit(settings)
            self._figures[settings] = self._look(self._last, settings)
            if self._figures[settings] > self._leading[0]:
                self._leading = self._figures[settings], self._last
        return self._figures[settings]

    def chosen(self) -> dict[str, float | None]:
        """The best values of what was open, by name; the weight is chosen elsewhere."""
        return {
            name: getattr(self.best, name)
            for name in self._varied | self._part.open
            if name != self._part.weight and getattr(self._given, name) is None
        }

    def fitted(self) -> Fitted[Hyperparameters]:
        """The part as the best settings have it."""
        self._last = self._fit(self.best)
        return self._last

    def _fit(self, settings: Hyperparameters) -> Fitted[Hyperparameters]:
        for fitted in (self._last, self._leading[1]):
            if fitted is not None and fitted.serves(settings):
                return fitted
        return self._fresh(settings)
