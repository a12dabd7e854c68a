"""What the trainer holds after a training is what its graph needs."""

import subprocess
import sys

import pytest

TRAINING = """
import numpy as np
from trainer.memory import give_back

def resident():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) / 1024

give_back()
before = resident()
pieces = [np.ones(12_000) for _ in range(3_000)]
kept = pieces[::100]  # what lies between keeps glibc from giving the rest back by itself
del pieces
print(resident() - before)
give_back()
print(resident() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="what is resident is read from /proc")
def test_what_a_training_has_freed_goes_back_to_the_system() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", TRAINING], capture_output=True, text=True, check=True
    )
    freed, given_back = map(float, ended.stdout.split())
    assert freed > 200  # MiB, of 275 that were in use
    assert given_back < 30
