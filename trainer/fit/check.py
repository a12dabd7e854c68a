"""Whether a graph has anything to learn from, with settings as they are."""

from __future__ import annotations

import numpy as np

from process.errors import StreamGCNError
from trainer.graph import whole
from trainer.graph.interactions import InteractionGraph
from trainer.model.hyperparameters import Hyperparameters


class NothingToLearn(StreamGCNError):
    """No edge of the graph has any strength, or no part of the model is left."""


class NothingJoined(NothingToLearn):
    """No user has two items, so nothing can be recommended from anything."""


def check(graph: InteractionGraph, settings: Hyperparameters) -> None:
    """See that there is something to learn.

    Args:
        settings: as `Hyperparameters.for_graph` gives them for the graph.

    Raises:
        NothingToLearn: no edge says what users like, or no part of the model is left.
        NothingJoined: no user has two items that the user likes.
    """
    parts = settings.parts
    # Before the parts: of users with one item each no order is known, which may leave no part.
    if not parts or not all(part.uses_weights for part in parts):
        if not whole.liked(graph):
            raise NothingToLearn(
                "no edge has a weight above 0; send positive interactions or set "
                "STREAMGCN_TYPE_WEIGHTS"
            )
        edges = np.bincount(graph.users[graph.strengths > 0])
        if graph.ranks.most(int(edges.max(initial=0))) < 2:
            raise NothingJoined(
                f"none of the {whole.users(graph)} users has two items of a weight above 0, so no "
                "item leads to another; publish more interactions of these users"
            )
    if not parts:
        raise NothingToLearn(
            "every part of the model has the weight 0, or needs times that the edges do not have; "
            "give another part a weight in the file of STREAMGCN_MODEL_FILE"
        )
