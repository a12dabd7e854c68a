"""Our Adam: the steps of the paper and of torch's class, without what the class imports."""

import subprocess
import sys
from math import cos, pi

import pytest
import torch
from torch.nn import Parameter

from tests.services import ROOT
from trainer.model.adam import Adam

EPOCHS = 7
TRAINED = """
import sys
from tests.graphs import blocks
from trainer.model.hyperparameters import Hyperparameters
from trainer.model.learned import Learned
Learned().fit(blocks(), Hyperparameters("lightgcn", dim=8, epochs=2, negatives=32).usual())
print("torch._dynamo" in sys.modules)
"""


@pytest.mark.parametrize("decay", [0.0, 0.01])
def test_each_step_is_that_of_the_paper_with_a_rate_that_falls_along_a_cosine(decay: float) -> None:
    torch.manual_seed(0)
    start, wanted = torch.randn(5, 3), torch.randn(5, 3)
    ours, theirs = Parameter(start.clone()), start.double()
    mine = Adam([ours], 0.1, EPOCHS, decay=decay)
    mean, square = torch.zeros(5, 3).double(), torch.zeros(5, 3).double()
    for step in range(EPOCHS):
        (ours - wanted).square().sum().backward()  # type: ignore[no-untyped-call]
        mine.step()
        gradient = 2 * (theirs - wanted) + decay * theirs
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.999 * square + 0.001 * gradient**2
        unbiased = mean / (1 - 0.9 ** (step + 1)), square / (1 - 0.999 ** (step + 1))
        rate = 0.1 * (1 + cos(pi * step / EPOCHS)) / 2
        theirs = theirs - rate * unbiased[0] / (unbiased[1].sqrt() + 1e-8)
        torch.testing.assert_close(ours.data, theirs.float())


@pytest.mark.long  # importing the class costs seconds of CPU
@pytest.mark.parametrize("decay", [0.0, 0.01])
def test_each_step_is_that_of_the_class_of_torch_with_the_cosine_of_torch(
    decay: float,
) -> None:
    torch.manual_seed(0)
    start, wanted = torch.randn(5, 3), torch.randn(5, 3)
    ours, theirs, unused = (Parameter(start.clone()) for _ in range(3))
    mine = Adam([ours, unused], 0.1, EPOCHS, decay=decay)
    reference = torch.optim.Adam([theirs], lr=0.1, weight_decay=decay)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(reference, EPOCHS)
    for _ in range(EPOCHS):
        for parameter in (ours, theirs):
            (parameter - wanted).square().sum().backward()  # type: ignore[no-untyped-call]
        mine.step()
        reference.step()
        cosine.step()
        reference.zero_grad()
        torch.testing.assert_close(ours.data, theirs.data)
    assert not torch.equal(ours.data, start)
    assert torch.equal(unused.data, start)
    assert mine.rate() == pytest.approx(0)


@pytest.mark.long
def test_a_training_does_not_import_the_compiler_of_torch() -> None:
    done = subprocess.run(
        [sys.executable, "-c", TRAINED], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"
