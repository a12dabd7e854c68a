"""The entry of the command `streamgcn`: a signal while it starts ends it as one does later."""

from __future__ import annotations

import os
import signal
import sys

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
    from streamgcn.cli.main import main as run

    if signal.getsignal(signal.SIGINT) == signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    run()


if __name__ == "__main__":
    main()
