"""The command once more, for `python -m streamgcn.cli` and `torchrun -m streamgcn.cli`."""

from __future__ import annotations

from streamgcn.__main__ import main

main()
