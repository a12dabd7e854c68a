"""Gowalla, every item ranked: with benchmarks/gowalla.toml, each part of it alone, with defaults.

Prints JSON. The published protocol chooses settings on the test file; the defaults are read off
edges held out of the train file. Rivals: LightGCN 0.1830 / 0.1554 (He et al., SIGIR 2020) and
ChebyCF 0.1941 / 0.1616 (SIGIR 2025), the best published.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from trainer.model.blend import PARTS
from trainer.model.hyperparameters import Hyperparameters
from trainer.model.model_file import filled_by, written

HERE = Path(__file__).parent
DATA = Path(os.environ.get("DATA", HERE.parent.parent / "shared" / "data"))
EPOCHS = 600  # of gowalla.toml; the learned part still gains from them
POWER_ALONE = 0.15  # of the learned part by itself: beside others it needs less of popularity
PUBLISHED = {"LightGCN": (0.1830, 0.1554), "ChebyCF": (0.1941, 0.1616)}


def published() -> Hyperparameters:
    """benchmarks/gowalla.toml."""
    return filled_by(HERE / "gowalla.toml", Hyperparameters())


def alone(part: str) -> Hyperparameters:
    """The same with the other parts left out."""
    changed = {other.weight: 0.0 for other in PARTS if other.name != part}
    changed |= {"learned_power": POWER_ALONE} if part == "learned" else {}
    return replace(published(), **changed)  # type: ignore[arg-type]  # by name


def evaluate(settings: Hyperparameters | None) -> dict[str, object]:
    """Run `streamgcn evaluate` as a user would, with a file of settings or with nothing set."""
    clean = {name: v for name, v in os.environ.items() if not name.startswith("STREAMGCN_")}
    files = [f"--{part}={DATA}/gowalla-{part}.parquet" for part in ("train", "test")]
    begun = time.monotonic()
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        if settings:
            file.write(written(settings))
            file.flush()
            clean["STREAMGCN_MODEL_FILE"] = file.name
            if settings.learned_weight:
                clean["STREAMGCN_EPOCHS"] = str(EPOCHS)
        done = subprocess.run(
            [sys.executable, "-m", "streamgcn", "evaluate", *files],
            env=clean,
            stdout=subprocess.PIPE,
            check=True,
        )
    seconds = round(time.monotonic() - begun, 1)
    found = json.loads(done.stdout)
    ratios = {
        name: round(found["recall@20"] / recall, 3) for name, (recall, _) in PUBLISHED.items()
    }
    return {
        "recall@20": found["recall@20"],
        "ndcg@20": found["ndcg@20"],
        "seconds": seconds,
        "to_train_seconds": found["seconds"]["train"],
        "recall_over_published": ratios,
        "settings": found["settings"],
    }


def main() -> None:
    """Run what is named on the command line, or everything."""
    if not (DATA / "gowalla-train.parquet").exists():
        sys.exit(f"{DATA} has no gowalla-train.parquet; set DATA to the folder that has the split")
    runs: dict[str, Hyperparameters | None] = {
        f"{part.name}_alone": alone(part.name) for part in published().parts
    }
    runs |= {"published_protocol": published(), "defaults": None}
    names = sys.argv[1:] or list(runs)
    print(json.dumps({name: evaluate(runs[name]) for name in names}, indent=2))


if __name__ == "__main__":
    main()
