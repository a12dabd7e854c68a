"""Where a training computes. Without a GPU, torch's device "meta" stands for one."""

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

from trainer.model import adam


def test_a_step_of_adam_has_all_its_numbers_where_the_parameters_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Elsewhere torch's fused step on a GPU does not find the count of the steps."""
    given: list[Tensor] = []

    def step_of_torch(*tensors: list[Tensor], **_: object) -> None:
        given.extend(tensor for group in tensors for tensor in group)

    monkeypatch.setattr(adam, "adam", step_of_torch)
    table = Parameter(torch.zeros(5, 3, device="meta"))
    table.grad = torch.zeros_like(table)
    adam.Adam([table], 0.1, 7).step()
    assert [tensor.device.type for tensor in given] == ["meta"] * 5
