"""Where the runs of a suite are done: in this process, in several ones, or by the workers of a Dask scheduler."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from typing import Any

from joblib import cpu_count
from joblib.externals.loky.process_executor import ProcessPoolExecutor

from actrelax.models.errors import ActrelaxError
from actrelax.simulations.training.signals import Stopped


@contextmanager
def executor_for(jobs: int | None, scheduler: str | None) -> Iterator[tuple[Executor, int]]:
    """Yield an executor in this process, in several processes or on a cluster, and its number of runs at a time.

    joblib's Dask backend is not used, because it hangs when Dask gives up a task.
    """
    if scheduler is None:
        jobs = jobs or cpu_count()
        if jobs == 1:
            yield _ThisProcess(), 1
            return
        executor = ProcessPoolExecutor(jobs, initializer=_leave_signals_to_the_parent)
        try:
            yield executor, jobs
        except BaseException as error:
            executor.shutdown(kill_workers=not isinstance(error, Stopped))  # a second Ctrl-C does not wait for runs
            raise
        executor.shutdown()
        return
    try:
        from distributed import Client
    except ImportError as error:
        raise ActrelaxError('--scheduler needs Dask: pip install "actrelax[cluster]".') from error
    try:
        client = Client(scheduler, timeout=10)  # type: ignore[no-untyped-call]
    except (OSError, ValueError, TypeError) as error:
        raise ActrelaxError(
            f"--scheduler {scheduler} can't be reached: start it with dask scheduler (tls needs certificates)."
        ) from error
    with client:
        threads = sum(client.nthreads().values())  # type: ignore[no-untyped-call]
        yield client.get_executor(pure=False), jobs or max(1, threads)  # type: ignore[no-untyped-call]


class _ThisProcess(Executor):
    """Executor that calls at once in the main thread, which handles signals."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


def _leave_signals_to_the_parent() -> None:
    """Ignore SIGINT and SIGTERM outside of runs, since the parent handles them and forwards SIGTERM."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: None)
