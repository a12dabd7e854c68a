"""Adam whose rates fall to 0 along half a cosine.

The class torch.optim.Adam imports torch's compiler, which nothing here uses and which costs each
process that trains two seconds of CPU. torch's function for one step does not.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import cos, pi

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim.adam import adam

BETAS = 0.9, 0.999  # as Kingma and Ba give them
EPSILON = 1e-8


class Adam:
    """Adam (Kingma and Ba, ICLR 2015), with the cosine of Loshchilov and Hutter (ICLR 2017)."""

    def __init__(
        self, parameters: Iterable[Parameter], rate: float, epochs: int, *, decay: float = 0.0
    ) -> None:
        """Begin with `rate`; `decay` times a parameter is added to the gradient of the parameter.

        Args:
            epochs: steps until the rate is 0.
        """
        self._parameters = list(parameters)
        self._rate, self._epochs, self._decay = rate, epochs, decay
        self._step = 0
        self._moments: list[tuple[Tensor, Tensor, Tensor]] = [
            # The fused step counts where the parameters are, also on a GPU.
            (torch.zeros_like(p), torch.zeros_like(p), torch.zeros((), device=p.device))
            for p in self._parameters
        ]

    def rate(self) -> float:
        """The rate of the next step."""
        return self._rate * (1 + cos(pi * self._step / self._epochs)) / 2

    def moved(self, number: int) -> Tensor:
        """Which rows of a parameter have had a gradient, bool [rows]."""
        return self._moments[number][1].any(1)

    @torch.no_grad()
    def step(self) -> None:
        """Change each parameter by its gradient, and forget the gradient."""
        learning = [
            (parameter, parameter.grad, *moments)
            for parameter, moments in zip(self._parameters, self._moments, strict=True)
            if parameter.grad is not None
        ]
        if learning:
            parameters, gradients, means, squares, steps = (
                list(each) for each in zip(*learning, strict=True)
            )
            adam(
                parameters, gradients, means, squares, [], steps,
                beta1=BETAS[0], beta2=BETAS[1], lr=self.rate(), weight_decay=self._decay,
                eps=EPSILON, amsgrad=False, maximize=False,
                fused=True,  # one pass over the tables in the place of ten
            )  # fmt: skip
        for parameter in self._parameters:
            parameter.grad = None
        self._step += 1
