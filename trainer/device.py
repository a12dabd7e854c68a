"""Which processor or GPU is computed on."""

from __future__ import annotations

import os

import torch

from process.errors import StreamGCNError


class DeviceMissing(StreamGCNError):
    """A GPU is asked for and there is none."""


def device(name: str) -> torch.device:
    """The device of the setting `auto`, `cpu`, `cuda` or `cuda:N`.

    Raises:
        DeviceMissing: a GPU is asked for and there is none.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise DeviceMissing(
            f"STREAMGCN_DEVICE={name}, but no GPU is usable here; set it to auto or cpu"
        )
    if name == "cuda":  # each process of torchrun has its own
        name = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    return torch.device(name)
