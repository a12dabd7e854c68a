"""Commands of `streamgcn` as processes that start at once: forks of one that has imported them.

The imports of a command take seconds, which was most of the time of the tests. A fork is a process
of its own all the same, with a pid, signals, settings, a folder and output of its own; it begins
where `python -m streamgcn` has ended its imports. At the end it does not take the interpreter
apart, which would cost more than most commands. Tests of start and end themselves use STREAMGCN.

    python -m tests.commands FD     forks for each connection that the socket FD takes
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).parent.parent
STREAMGCN = [sys.executable, "-m", "streamgcn"]
REQUEST_BYTES = 150_000
PATIENCE = 300.0  # seconds that a command may take
FORKING = "TESTS_FORKING"  # the variable with the address of the process that forks


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
        request = json.dumps([self.args, dict(env), str(folder)]).encode()
        self._state = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._state.connect(os.environ.get(FORKING) or _forking_for_this_process())
        with open(os.devnull, "r+b") as nothing:
            streams = [(stream or nothing).fileno() for stream in (stdin, stdout, stderr)]
            socket.send_fds(self._state, [request], streams)
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


@contextmanager
def forking() -> Iterator[str]:
    """Start the process that forks; the address of the socket, and the end of the process."""
    one_thread = {"OMP_NUM_THREADS": "1"}  # which a fork inherits
    with (
        tempfile.TemporaryDirectory() as folder,
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening,
    ):
        address = str(Path(folder) / "forks")
        listening.bind(address)
        listening.listen(64)  # connections wait while it imports
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.commands", str(listening.fileno())],
            env=without_settings() | one_thread, cwd=ROOT, pass_fds=[listening.fileno()],
            stdin=subprocess.PIPE,  # whose end tells that this process has ended, however it did
        )  # fmt: skip
        try:
            yield address
        finally:
            process.communicate()


@cache
def _forking_for_this_process() -> str:
    """The address, where the tests do not run in several processes that share one."""
    started = forking()
    atexit.register(started.__exit__, None, None, None)
    return started.__enter__()


def _fork(listening: socket.socket) -> None:
    """Fork for each request; returns in the process that is to run the command."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: the tests end this process
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # so that nobody has to wait for the watchers
    while True:
        if select.select([listening, sys.stdin], [], [])[0] != [listening]:
            os._exit(0)
        state, _ = listening.accept()
        if os.fork() == 0:
            break
        state.close()
    listening.close()
    request, streams, _, _ = socket.recv_fds(state, REQUEST_BYTES, 3)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if child := os.fork():  # this one watches the command
        for each in streams:
            os.close(each)
        state.send(b"%d" % child)
        state.send(b"%d" % os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        os._exit(0)
    state.close()
    for number, each in enumerate(streams):
        os.dup2(each, number)
        os.close(each)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    arguments, env, folder = json.loads(request)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(folder)
    sys.argv = ["streamgcn", *arguments]


def _end(code: int) -> None:
    """Do what an interpreter does at the end, except that it takes itself apart."""
    threading._shutdown()  # type: ignore[attr-defined]  # waits for threads; it has no other name
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    for name in (
        "consumer.ingest.loop",
        "serving.serve",
        "trainer.retrain",
        "streamgcn.backup",
        "streamgcn.forget",
        "streamgcn.replay.plot",
        "streamgcn.cli.main",
        "torch_geometric.nn",  # of the gcn alone, which some tests train
    ):
        import_module(name)
    from streamgcn.__main__ import main

    gc.freeze()  # what no fork collects no fork copies
    _fork(socket.socket(fileno=int(sys.argv[1])))
    try:
        main()
    except SystemExit as end:
        if isinstance(end.code, int):
            _end(end.code)
        raise
    _end(0)
