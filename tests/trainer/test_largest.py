"""The largest entries of rows."""

import pytest
import torch

from trainer.embedding.largest import largest


@pytest.mark.parametrize("columns", [5, 80, 81, 640, 5_003])
@pytest.mark.parametrize("levels", [3, 1_000_000])
def test_the_largest_are_those_of_the_sorted_row(columns: int, levels: int) -> None:
    drawn = torch.randint(levels, (4, columns), generator=torch.Generator().manual_seed(0))
    values = drawn.float()
    values[1] = -torch.inf
    values[2, 3:] = -torch.inf
    values[3] = torch.arange(columns)
    before = values.clone()
    found, places = largest(values, 5)
    assert torch.equal(found, values.sort(dim=1, descending=True).values[:, :5])
    assert torch.equal(values.gather(1, places), found)
    assert all(len(set(row)) == 5 for row in places.tolist())
    assert torch.equal(values, before)
