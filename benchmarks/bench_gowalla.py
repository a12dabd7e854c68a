"""Gowalla, every item ranked: with benchmarks/gowalla.env, each part of it alone, with defaults.

Prints JSON. The published protocol chooses settings on the test file; the defaults are read off
edges held out of the train file. Rivals: LightGCN 0.1830 / 0.1554 (He et al., SIGIR 2020) and
ChebyCF 0.1941 / 0.1616 (SIGIR 2025), the best published.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from trainer.model.blend import PARTS

HERE = Path(__file__).parent
DATA = Path(os.environ.get("DATA", HERE.parent.parent / "shared" / "data"))
PUBLISHED = {"LightGCN": (0.1830, 0.1554), "ChebyCF": (0.1941, 0.1616)}


def settings(path: Path) -> dict[str, str]:
    """Variables of an env file."""
    lines = (line.strip() for line in path.read_text().splitlines())
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def without(part: str) -> dict[str, str]:
    """Settings that leave the other parts out."""
    names = (other.weight for other in PARTS if other.name != part and not other.uses_order)
    return {f"STREAMGCN_{name.upper()}": "0" for name in names}


def evaluate(env: dict[str, str]) -> dict[str, object]:
    """Run `streamgcn evaluate` as a user would."""
    clean = {name: v for name, v in os.environ.items() if not name.startswith("STREAMGCN_")}
    files = [f"--{part}={DATA}/gowalla-{part}.parquet" for part in ("train", "test")]
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "streamgcn", "evaluate", *files],
        env=clean | env,
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
    published = settings(HERE / "gowalla.env")
    runs = {
        f"{part.name}_alone": published | without(part.name)
        for part in PARTS
        if not part.uses_order  # Gowalla has no times
    }
    runs |= {"published_protocol": published, "defaults": {}}
    names = sys.argv[1:] or list(runs)
    print(json.dumps({name: evaluate(runs[name]) for name in names}, indent=2))


if __name__ == "__main__":
    main()
