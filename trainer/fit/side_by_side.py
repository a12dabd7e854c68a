"""Work on two threads that share one progress: where one thread fails, the other one stops."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import TypeVar

from trainer.model.progress import Progress, TrainingStopped

T = TypeVar("T")
Job = Callable[[Progress], T]


class _Shared:
    """Of the two threads, the first one is shown as long as it works."""

    def __init__(self, progress: Progress) -> None:
        self._progress, self._one_at_a_time = progress, Lock()
        self._at: tuple[str, int, int, float | None] | None = None
        self.error: BaseException | None = None  # which came before any other

    def first(self, stage: str, done: int, steps: int, loss: float | None) -> None:
        with self._one_at_a_time:
            self._at = stage, done, steps, loss
            self._tell(*self._at)

    def second(self, stage: str, done: int, steps: int, loss: float | None) -> None:
        # Also where nothing new is shown: the progress may end the training.
        with self._one_at_a_time:
            self._tell(*(self._at or (stage, done, steps, loss)))

    def first_has_ended(self) -> None:
        with self._one_at_a_time:
            self._at = None

    def _tell(self, stage: str, done: int, steps: int, loss: float | None) -> None:
        if self.error is not None:
            raise TrainingStopped
        self._progress(stage, done, steps, loss)


def side_by_side(
    first: Job[T], others: Sequence[Job[T]], progress: Progress, at_once: bool = True
) -> list[T]:
    """Do the first job on this thread, and the others one after another on a second one.

    Args:
        at_once: else the others come after the first one, on this thread.

    Returns:
        What the jobs return, that of the first job first.

    Raises:
        Whatever a job raises, as soon as the other thread has told how far it is.
    """
    if not at_once:
        return [job(progress) for job in (first, *others)]
    shared = _Shared(progress)

    def noted(job: Job[T], told: Progress) -> T:
        try:
            return job(told)
        except BaseException as error:
            shared.error = shared.error or error
            raise

    with ThreadPoolExecutor(1) as second:
        futures = [second.submit(noted, job, shared.second) for job in others]
        try:
            made = noted(first, shared.first)
        except BaseException as error:
            second.shutdown(cancel_futures=True)
            raise (shared.error or error) from None
        shared.first_has_ended()
        return [made, *(future.result() for future in futures)]
