"""Low pass: the low frequencies of the graph, cut softly, without training.

R [users, items] holds the strengths of the edges, D_u and D_i its row and column sums. The score of
item j is the sum over the user's own items i of R_ui d_i^-b (V g(s) V^T)_ij d_j^b, with V, s the
leading right singular vectors and values of D_u^-c R D_i^-c, s scaled to 1 at the top, and
g(s) = s^2 / (s^2 + damping). c = 1/2 is GF-CF's (Shen et al., CIKM 2021) and best on sparse graphs;
b = c = 0 is ridge regression of items on items (EASE's without its constraint of a zero diagonal:
Steck, WWW 2019) and best on dense ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from trainer.device import device
from trainer.embedding.blend import BlendEmbeddings
from trainer.graph import whole
from trainer.graph.interactions import InteractionGraph
from trainer.graph.sparse import both_ways, normalised, power
from trainer.model.part import CommonSettings, Fitted, Part, Round, State, given
from trainer.model.progress import Progress, quiet
from trainer.model.setting import setting
from trainer.ranks import Ranks

ROUNDS = 4  # of the subspace iteration from a random start
WARM_ROUNDS = 1  # from the last basis
SPARE = 50  # vectors iterated beyond those asked for: the last ones converge slowest
COLUMNS = 256  # of the user side at a time in the subspace iteration
DRAWN = 16_384  # rows of random numbers at a time
FLOOR = 1e-7  # of the largest eigenvalue of a Gram matrix: below is rounding

NORMALIZATIONS = (0.5, 0.0)  # for sparse graphs, for dense ones
COARSE = {"vectors": 128, "low_pass_damping": 0.1}  # with which the two are told apart
POWERS = (0.0, 0.2, 0.3, 0.4, 0.5)
DAMPINGS = (0.03, 0.1, 0.3, 0.5, 1.0)
VECTORS = (1_024, 512, 256)  # the most first: fewer are the leading ones of these


@dataclass(frozen=True)
class LowPassSettings(CommonSettings):
    """c, b and damping of the formula are normalization, power and damping."""

    low_pass_weight: float | None = setting("Low pass: weight in the blend.", usual=1.0, least=0)
    low_pass_normalization: float | None = setting(
        "Low pass: exponent of the degrees that an edge is divided by; 0.5 is the symmetric "
        "normalisation, 0 is none.",
        usual=0.5, least=0, most=1,
    )  # fmt: skip
    low_pass_power: float | None = setting(
        "Low pass: exponent of the degree of the items.", usual=0.4, least=0, most=2
    )
    low_pass_damping: float | None = setting(
        "Low pass: a vector of singular value s counts s^2 / (s^2 + damping).", usual=0.3, above=0
    )
    vectors: int | None = setting("Low pass: singular vectors.", usual=1_024, least=1, most=8_192)


class Spectrum(NamedTuple):
    """Leading right singular vectors float32 [own items, n] and values [n], largest first."""

    vectors: Tensor
    values: Tensor


def spectrum(
    graph: InteractionGraph,
    n: int,
    device: torch.device,
    start: Tensor | None = None,
    normalization: float = 0.5,
    seed: int = 0,
) -> Spectrum:
    """Leading singular vectors of D_u^-c R D_i^-c by randomised subspace iteration.

    Halko, Martinsson & Tropp, SIAM Review 2011, algorithm 4.4, with the Gram matrix's eigenvectors
    in place of QR: as exact here, since singular values near zero are of no use, and three times
    quicker. Each rank has the rows of its own items, of the start and of what is made.

    Args:
        n: vectors wanted; there are fewer where the graph has a lower rank.
        start: float [own items, any], the last basis; zero rows for new items.
        normalization: c.
    """
    values = normalised(graph, normalization)
    largest = float(graph.ranks.largest(values.max(initial=0)))
    scale = max(largest, float(np.finfo(np.float32).tiny))
    by_user, by_item = both_ways(graph, values / scale, device)
    n_users, ranks = whole.users(graph), graph.ranks
    n, width = (min(most, n_users, graph.n_items) for most in (n, n + SPARE))
    basis = _begun(None if start is None else start.cpu(), width, seed, graph).to(device)
    rounds = ROUNDS if start is None else WARM_ROUNDS
    if width == graph.n_items:
        basis, rounds = torch.eye(width, device=device)[ranks.own], 0  # spans everything
    elif width == n_users:
        rounds = 1  # one spans all rows of the matrix
    for _ in range(rounds):
        basis = _orthonormal(_applied(by_user, by_item, basis, ranks), ranks)
    reduced = ranks.sum_tensor(basis.T @ _applied(by_user, by_item, basis, ranks)).double()
    squares, rotation = _eigenvectors((reduced + reduced.T) / 2, ranks)
    singular = squares.flip(0)[:n].clamp(min=0).sqrt().float()
    return Spectrum(basis @ rotation.flip(1)[:, :n].float(), singular * scale)


def leading(made: Spectrum, n: int) -> Spectrum:
    """The n leading vectors and values, or all there are."""
    return Spectrum(made.vectors[:, :n].contiguous(), made.values[:n])


def relative_squares(made: Spectrum) -> Tensor:
    """Squared singular values, scaled to 1 at the top; [n]."""
    values = made.values
    scaled: Tensor = (values / values[:1].clamp(min=torch.finfo(values.dtype).tiny)) ** 2
    return scaled


def low_pass(
    graph: InteractionGraph, made: Spectrum, item_power: float, damping: float
) -> tuple[Tensor, Tensor]:
    """Incoming and outgoing item vectors, float32 [own items, n] each.

    Args:
        item_power, damping: b and the damping of g.
    """
    degrees = graph.item_strengths[graph.ranks.own]
    squares = relative_squares(made)
    vectors, gain = made.vectors, squares / (squares + damping)
    own = torch.from_numpy(power(degrees, -item_power)).to(vectors.device)
    other = torch.from_numpy(power(degrees, item_power)).to(vectors.device)
    return vectors * gain * own[:, None], vectors * other[:, None]


def _begun(known: Tensor | None, width: int, seed: int, graph: InteractionGraph) -> Tensor:
    """This rank's rows of a basis: the columns that are known, and random ones."""
    n_items, ranks = graph.n_items, graph.ranks
    columns = [] if known is None else [known]
    more = max(0, width - sum(each.shape[1] for each in columns))
    generator, rows = torch.Generator().manual_seed(seed), [torch.empty(0, more)]
    for begin in range(0, n_items, DRAWN):  # all ranks draw the same, and keep the rows of few
        drawn = torch.randn(min(DRAWN, n_items - begin), more, generator=generator)
        rows.append(drawn[(ranks.rank - begin) % ranks.size :: ranks.size] / n_items**0.5)
    return torch.cat([*columns, torch.cat(rows)], 1)


def _applied(by_user: Tensor, by_item: Tensor, basis: Tensor, ranks: Ranks) -> Tensor:
    """This rank's rows of the normalised item-item matrix times a basis, of which it has the same
    rows, with few columns of the user side at once."""
    made = []
    for part in torch.split(basis, COLUMNS, 1):
        summed = ranks.sum_tensor(by_item @ (by_user @ ranks.whole(part)))
        # A copy of some rows, as a view would keep all of them in memory.
        made.append(summed[ranks.own].clone() if ranks.several else summed)
    return torch.cat(made, 1)


def _orthonormal(basis: Tensor, ranks: Ranks) -> Tensor:
    """An orthonormal basis of the same space, without directions that are rounding only."""
    squares, rotation = _eigenvectors(ranks.sum_tensor(basis.T @ basis).double(), ranks)
    kept = squares > squares[-1] * FLOOR
    made: Tensor = basis @ (rotation[:, kept] / squares[kept].sqrt()).float()
    return made


def _eigenvectors(matrix: Tensor, ranks: Ranks) -> tuple[Tensor, Tensor]:
    """As eigh has them on the first rank: on another machine a vector may point the other way."""
    squares, rotation = torch.linalg.eigh(matrix)
    return ranks.firsts(squares), ranks.firsts(rotation)


@dataclass(frozen=True)
class FittedLowPass(Fitted[LowPassSettings]):
    """The leading vectors; fewer are the first of these."""

    spectrum: Spectrum
    normalization: float
    asked: int  # vectors; a graph of lower rank has fewer

    def serves(self, settings: LowPassSettings) -> bool:
        """Whether these settings need no other fit."""
        same = self.normalization == (settings.low_pass_normalization or 0.0)
        return same and (settings.vectors or 0) <= self.asked

    def embeddings(self, graph: InteractionGraph, settings: LowPassSettings) -> BlendEmbeddings:
        """The part on its own."""
        made = leading(self.spectrum, settings.vectors or 0)
        b, damping = settings.low_pass_power or 0.0, settings.low_pass_damping or 0.0
        incoming, outgoing = (tensor.cpu() for tensor in low_pass(graph, made, b, damping))
        tensors = {
            "base": torch.zeros(graph.n_users, 0),
            "incoming": incoming,
            "outgoing": outgoing,
            "squares": made.values.cpu() ** 2,
        }
        recency, dampened = settings.recency or 0.0, bool(settings.dampening)
        return BlendEmbeddings("blend", 0, True, tensors, recency, dampened)

    def state(self, settings: LowPassSettings) -> State:
        """The basis from which the next iteration begins."""
        return {"basis": leading(self.spectrum, settings.vectors or 0).vectors.cpu()}


class LowPass(Part[LowPassSettings]):
    """Low pass as a part of the blend."""

    name = "low_pass"
    kind = LowPassSettings
    needed = ("low_pass_power", "low_pass_normalization", "low_pass_damping")

    def fit(
        self,
        graph: InteractionGraph,
        settings: LowPassSettings,
        progress: Progress = quiet,  # noqa: ARG002
        state: State | None = None,
        share: int = 1,  # noqa: ARG002
        held_out: InteractionGraph | None = None,  # noqa: ARG002
    ) -> FittedLowPass:
        """Find the leading vectors, in one round where the state has as many."""
        asked, c = settings.vectors or 0, settings.low_pass_normalization or 0.0
        n = min(asked, whole.users(graph), graph.n_items)
        basis = (state or {}).get("basis")
        if basis is not None and basis.shape[1] < n:
            basis = None  # one round would not bring out the others
        made = spectrum(graph, n, device(settings.device), basis, c)
        return FittedLowPass(made, c, asked)

    def grid(self, settings: LowPassSettings) -> Sequence[Round]:
        """The normalisation with few vectors; then damping, power and number of vectors."""
        powers = given(settings.low_pass_power, POWERS)
        normal = given(settings.low_pass_normalization, NORMALIZATIONS)
        nearest = [(c, min((abs(b - c), b) for b in powers)[1]) for c in normal]
        coarse: dict[str, Any] = dict(COARSE)
        if settings.low_pass_damping is not None:
            del coarse["low_pass_damping"]
        return [
            Round(("low_pass_normalization", "low_pass_power"), nearest, coarse),
            Round(("low_pass_damping",), [(d,) for d in DAMPINGS]),
            Round(("low_pass_power",), [(b,) for b in POWERS]),
            Round(("vectors",), [(n,) for n in VECTORS]),
        ]

    def fits(self, state: dict[str, Any], settings: LowPassSettings) -> bool:
        """A training does not go on from a basis of another normalisation."""
        asked = settings.low_pass_normalization
        return asked in (None, state.get("low_pass_normalization"))
