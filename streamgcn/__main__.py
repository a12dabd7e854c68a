"""The entry of the command `streamgcn`: Ctrl-C while it starts ends it, without a traceback."""

from __future__ import annotations

import signal


def main() -> None:
    """Import the command, which takes a second or more, and run it."""
    python_listens = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if python_listens:
        # Python's handler raises inside whatever is imported, where it is shown, or even lost.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from streamgcn.cli import main as run

    if python_listens:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    run()


if __name__ == "__main__":
    main()
