"""Several ranks of one training, as torchrun starts them: processes of their own, by gloo.

python -m tests.ranks MODULE:FUNCTION FOLDER     one of them
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

from streamgcn.services.ports import free_port
from tests.services import PATIENCE

ROOT = Path(__file__).parent.parent
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]


def environment(size: int) -> list[dict[str, str]]:
    """What torchrun sets, for each of `size` processes on this machine."""
    port = free_port()
    common = {
        "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    return [common | {"RANK": str(n), "LOCAL_RANK": str(n)} for n in range(size)]


def together(function: str, folder: Path, size: int = 2, env: Mapping[str, str] = {}) -> None:
    """Run a function (`module:name`) on so many ranks; each is given its ranks and the folder."""
    command = [sys.executable, "-m", "tests.ranks", function, str(folder)]
    processes = [
        subprocess.Popen(command, env=os.environ | env | own, cwd=ROOT) for own in environment(size)
    ]
    try:
        assert [each.wait(PATIENCE) for each in processes] == [0] * size
    finally:
        for each in processes:
            each.kill()
            each.wait()


@contextmanager
def trainers(env: dict[str, str], log: Path, size: int = 2) -> Iterator[subprocess.Popen[bytes]]:
    """torchrun with so many trainers; what all of them say is in `log`."""
    with log.open("wb") as output:
        command = [*TORCHRUN, str(size), "-m", "streamgcn.cli", "trainer"]
        process = subprocess.Popen(command, env=env, cwd=ROOT, stderr=output, stdout=output)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(PATIENCE)


def rank(process: subprocess.Popen[bytes], number: int) -> int:
    """The pid of one of the trainers."""
    for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
        if f"RANK={number}".encode() in Path(f"/proc/{child}/environ").read_bytes().split(b"\0"):
            return int(child)
    raise AssertionError(f"there is no rank {number}")


if __name__ == "__main__":
    import torch

    from trainer.group import join

    module, _, name = sys.argv[1].partition(":")
    ranks = join(torch.device("cpu"))
    getattr(import_module(module), name)(ranks, Path(sys.argv[2]))
    ranks.leave()
