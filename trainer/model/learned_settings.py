"""The settings of the learned part."""

from __future__ import annotations

from dataclasses import dataclass

from trainer.model.network import NetworkSettings
from trainer.model.setting import setting


@dataclass(frozen=True)
class LearnedSettings(NetworkSettings):
    """The learned part: next items, or LightGCN."""

    learned_weight: float | None = setting("Learned part: weight in the blend.", usual=1.0, least=0)
    learned_order: float | None = setting(
        "Kind of the learned part. 1: vectors of items, trained to predict a user's next item (for "
        "edges with times). 0: LightGCN.",
        usual=1.0, switch=True, before=0.0,
    )  # fmt: skip
    learned_power: float | None = setting(
        "Learned part: exponent of the degree of the item in the scores.",
        usual=0.2, least=0, most=2,
    )  # fmt: skip

    @property
    def predicts_next(self) -> bool:
        """Whether the learned part is that of next_item.py; where it is not set, recency tells."""
        order = self.recency != 0 if self.learned_order is None else bool(self.learned_order)
        return order and self.model == "blend" and self.loss in (None, "softmax")
