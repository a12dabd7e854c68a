"""Two processes on the CPU (gloo) train as one does."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.graphs import blocks
from tests.services import PATIENCE
from trainer.model.hyperparameters import Hyperparameters
from trainer.model.learned import Learned
from trainer.model.parallel import first

SETTINGS = Hyperparameters(
    "lightgcn", dim=8, epochs=12, negatives=32, temperature=0.2, negative_power=0.5, edge_drop=0.2
)


def losses() -> tuple[list[float], dict[str, torch.Tensor]]:
    seen: list[float] = []
    fitted = Learned().fit(blocks(), SETTINGS, lambda *told: seen.append(told[3] or 0.0))
    return seen, fitted.state(SETTINGS)


@pytest.mark.long
def test_two_processes_give_the_losses_and_tables_of_one(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    env = os.environ | {
        "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1", "FOLDER": str(tmp_path),
    }  # fmt: skip
    script = "import tests.trainer.test_parallel as t; t.main()"
    processes = [
        subprocess.Popen([sys.executable, "-c", script], env=env | {"RANK": str(rank)})
        for rank in range(2)
    ]
    assert [process.wait(PATIENCE) for process in processes] == [0, 0]
    expected, tables = losses()
    for rank in range(2):
        saved = load_file(tmp_path / f"{rank}.safetensors")
        torch.testing.assert_close(saved["losses"], torch.tensor(expected), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(saved["items"], tables["items"], atol=1e-3, rtol=1e-3)


def test_the_first_of_several_processes_reports_also_where_they_never_join(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert first()
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    assert first()
    monkeypatch.setenv("RANK", "1")
    assert not first()


def main() -> None:
    seen, tables = losses()
    torch.distributed.destroy_process_group()
    path = Path(os.environ["FOLDER"]) / f"{os.environ['RANK']}.safetensors"
    save_file({"losses": torch.tensor(seen), "items": tables["items"]}, path)
