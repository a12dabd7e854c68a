"""The entry of the command `streamgcn`: a signal while it starts ends it as one does later."""

from __future__ import annotations

import atexit
import os
import signal
import sys

from process.allocator import limit_memory
from process.shutdown import SIGNALS

PROCESSES = ("up", "consumer", "trainer", "serving", "page")  # which run until a signal


def main() -> None:
    """Import the command, which takes seconds on a busy machine, and run it."""
    runs_on = sys.argv[1:2] and sys.argv[1] in PROCESSES
    for number in SIGNALS:
        if signal.getsignal(number) == signal.SIG_IGN:
            continue  # as under nohup
        if runs_on:
            signal.signal(number, lambda *_: os._exit(0))  # nothing has begun yet
        elif number == signal.SIGINT:
            # Python's handler raises inside whatever is imported, where it is shown, or even lost.
            signal.signal(number, signal.SIG_DFL)
    code = [1]
    if runs_on:
        atexit.register(_leave, code)  # the first is called last, when no thread is left
    if sys.argv[1:2] == ["serving"]:  # which holds a share of what it reads
        limit_memory()
    from streamgcn.cli.main import main as run

    if signal.getsignal(signal.SIGINT) == signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        run()
    except SystemExit as end:
        code[:] = [end.code if isinstance(end.code, int) else int(end.code is not None)]
        raise


def _leave(code: list[int]) -> None:
    """End the process where Python would begin to take itself apart.

    With torch that takes seconds on a busy machine, and no thread could end the process meanwhile.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(*code)


if __name__ == "__main__":
    main()
