"""Commands of `streamgcn` as processes that start at once: forks of one that has imported them.

The imports of a command take seconds, which was most of the time of the tests. A fork is a process
of its own all the same, with a pid, signals, settings, a folder and output of its own; it begins
where `python -m streamgcn` has ended its imports. Tests of the start itself use STREAMGCN.

    python -m tests.commands FD     forks for each request that comes from the socket FD
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).parent.parent
STREAMGCN = [sys.executable, "-m", "streamgcn"]
REQUEST_BYTES = 150_000
PATIENCE = 300.0  # seconds that a command may take


def without_settings() -> dict[str, str]:
    """The environment without any setting of StreamGCN, and without the size of a terminal.

    The plugin that runs tests at once sets COLUMNS, which a console reads when it is made.
    """
    ours = ("STREAMGCN_", "KAFKA_", "REDIS_", "EDGE_STORE", "MODEL_STORE", "COLUMNS", "LINES")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


class Command:
    """A command that runs; what the tests use of subprocess.Popen."""

    def __init__(
        self,
        arguments: Sequence[str],
        env: Mapping[str, str],
        folder: Path = ROOT,
        *,
        stdin: IO[Any] | None = None,
        stdout: IO[Any] | None = None,
        stderr: IO[Any] | None = None,
    ) -> None:
        """A stream that is not given is /dev/null."""
        self.args = list(arguments)
        self.returncode: int | None = None
        self._state, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        request = json.dumps([self.args, dict(env), str(folder)]).encode()
        with theirs, open(os.devnull, "r+b") as nothing:
            streams = [(stream or nothing).fileno() for stream in (stdin, stdout, stderr)]
            socket.send_fds(_forking(), [request], [*streams, theirs.fileno()])
        self.pid = self._told(PATIENCE)

    def poll(self) -> int | None:
        """The exit code, or minus the number of the signal that ended it; None while it runs."""
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def wait(self, seconds: float | None = None) -> int:
        """The exit code.

        Raises:
            subprocess.TimeoutExpired: it still runs after so many seconds.
        """
        if self.returncode is None:
            try:
                self.returncode = self._told(seconds)
            except (TimeoutError, BlockingIOError):
                raise subprocess.TimeoutExpired(self.args, seconds or 0.0) from None
            self._state.close()
        return self.returncode

    def send_signal(self, number: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _told(self, seconds: float | None) -> int:
        """The pid, then the exit code."""
        self._state.settimeout(seconds)
        told = self._state.recv(16)
        assert told, "the process that forks has ended"
        return int(told)


def run(
    arguments: Sequence[str],
    env: Mapping[str, str],
    folder: Path = ROOT,
    *,
    given: bytes = b"",
    seconds: float = PATIENCE,
) -> subprocess.CompletedProcess[str]:
    """A command to its end, with `given` as its standard input.

    Raises:
        subprocess.TimeoutExpired: it still ran after so many seconds; it is killed.
    """
    with (
        tempfile.TemporaryFile() as stdin,
        tempfile.TemporaryFile() as stdout,
        tempfile.TemporaryFile() as stderr,
    ):
        stdin.write(given)
        stdin.seek(0)
        command = Command(arguments, env, folder, stdin=stdin, stdout=stdout, stderr=stderr)
        try:
            code = command.wait(seconds)
        finally:
            command.kill()
            command.wait()
        stdout.seek(0)
        stderr.seek(0)
        said, errors = stdout.read().decode(), stderr.read().decode()
    return subprocess.CompletedProcess(command.args, code, said, errors)


@cache
def _forking() -> socket.socket:
    """The socket of the process that forks, which is started once and ends with this one."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    one_thread = {"OMP_NUM_THREADS": "1"}  # which a fork inherits
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.commands", str(theirs.fileno())],
            env=without_settings() | one_thread, cwd=ROOT, pass_fds=[theirs.fileno()],
        )  # fmt: skip

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


def _fork(requests: socket.socket) -> None:
    """Fork for each request; returns in the process that is to run the command."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: the tests end this process
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # so that nobody has to wait for the watchers
    while True:
        request, received, _, _ = socket.recv_fds(requests, REQUEST_BYTES, 4)
        if not request:
            os._exit(0)
        if os.fork() == 0:
            break
        for each in received:
            os.close(each)
    requests.close()
    *streams, state = received
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if child := os.fork():  # this one watches the command
        for each in streams:
            os.close(each)
        with socket.socket(fileno=state) as told:
            told.send(b"%d" % child)
            told.send(b"%d" % os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        os._exit(0)
    os.close(state)
    for number, each in enumerate(streams):
        os.dup2(each, number)
        os.close(each)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    arguments, env, folder = json.loads(request)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(folder)
    sys.argv = ["streamgcn", *arguments]


if __name__ == "__main__":
    for name in (
        "consumer.ingest.loop",
        "serving.serve",
        "trainer.retrain",
        "streamgcn.backup",
        "streamgcn.forget",
        "streamgcn.replay.plot",
        "streamgcn.cli.main",
    ):
        import_module(name)
    from streamgcn.__main__ import main

    gc.freeze()  # what no fork collects no fork copies
    _fork(socket.socket(fileno=int(sys.argv[1])))
    main()
