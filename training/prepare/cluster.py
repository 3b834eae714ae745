"""Preparing on the machines of a Ray cluster: the same worker, and the same bytes.

The machine that runs the command lists the source, hands items to the cluster, takes what comes
back in order and alone writes the dataset. Every machine needs this version of s2v, and sees the
source under the same path; both are checked where the work is done. A machine or process that is
lost costs its items another try; an item whose tries all end so becomes a row of the report.
"""

from __future__ import annotations

import itertools
import logging
import os
import socket
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from s2v_cli import __version__
from s2v_cli.errors import DependencyError, OptionError, TrainingError
from s2v_cli.training.prepare.executors import AHEAD, Result, Task
from s2v_cli.training.prepare.sources import Item

RETRIES = 2  # further tries of an item whose process or machine was lost
CONNECT_S = 10.0
_WORDS = ("local", "auto")
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is reported to anybody
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # GPUs stay visible, for --device
}


@dataclass(frozen=True)
class RayCluster:
    """An executor that works on a Ray cluster.

    Attributes:
        address: `local` starts Ray on this machine, `auto` joins the cluster that this machine is
            part of, HOST:PORT another one.
        workers: processes for `local`; None takes one a core.

    Raises:
        OptionError: it is no address.
    """

    address: str = "auto"
    workers: int | None = None

    def __post_init__(self) -> None:
        if self.address not in _WORDS:
            _host_and_port(self.address)

    def map(
        self,
        worker: Callable[[Task], Result],
        tasks: Iterable[Task],
        lost: Callable[[Task], Result],
    ) -> Iterator[Result]:
        """See `training.prepare.executors.Executor`.

        Raises:
            DependencyError: Ray is missing.
            OptionError: no cluster at that address.
            TrainingError: a machine has another version of s2v, or does not see the source.
        """
        ray = _import_ray()
        ours = not ray.is_initialized()
        if ours:
            self._join(ray)
        waiting = deque[tuple[Task, Any]]()
        try:
            room = AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1)))
            remote = ray.remote(_work).options(num_cpus=1, max_retries=RETRIES)
            given = ray.put((worker, os.getcwd(), __version__))
            rest = iter(tasks)
            while True:
                for task in itertools.islice(rest, room - len(waiting)):
                    waiting.append((task, remote.remote(given, task)))
                if not waiting:
                    return
                task, reference = waiting.popleft()
                yield _result_of(ray, worker, task, reference, lost)
        finally:
            for _, reference in waiting:
                ray.cancel(reference, force=True)
            if ours:
                ray.shutdown()

    def _join(self, ray: Any) -> None:
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        if self.address not in _WORDS:
            _look(*_host_and_port(self.address))
        quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
        try:
            if self.address == "local":
                ray.init(address="local", num_cpus=self.workers, include_dashboard=False, **quiet)
            else:
                ray.init(address=self.address, **quiet)
        except (ConnectionError, ValueError, RuntimeError) as error:
            if self.address == "auto":
                raise OptionError(
                    "ray is 'auto', but this machine is part of no Ray cluster. Start one with "
                    "'ray start --head', give HOST:PORT, or --ray local."
                ) from None
            reason = str(error).split("\n")[0].rstrip(".")
            raise OptionError(
                f"ray is {self.address!r}, which does not answer: {reason}."
            ) from None


def _host_and_port(address: str) -> tuple[str, int]:
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if host and colon and port.isdecimal() and int(port) < 1 << 16:
        return host, int(port)
    raise OptionError(f"ray is {address!r}; allowed: {', '.join(_WORDS)}, or HOST:PORT.")


def _look(host: str, port: int) -> None:
    """Look whether anything listens there; Ray itself would wait for minutes."""
    try:
        socket.create_connection((host, port), timeout=CONNECT_S).close()
    except OSError as error:
        raise OptionError(
            f"ray is '{host}:{port}', where no cluster answers ({error.strerror or error}). 'ray "
            "status' on its head machine shows the address."
        ) from None


@dataclass(frozen=True)
class _Unfit:
    """What a machine returns that cannot do the work."""

    node: str
    version: str
    missing: Path | None


def _work(given: tuple[Callable[[Any], Any], str, str], task: Any) -> Any:
    """On a machine of the cluster: what becomes of a task, or why that cannot be told there."""
    import torch

    worker, folder, version = given
    if version != __version__:
        return _Unfit(socket.gethostname(), __version__, None)
    try:
        os.chdir(folder)  # where relative paths begin
    except OSError:
        return _Unfit(socket.gethostname(), __version__, Path(folder))
    for file in task.files if isinstance(task, Item) else ():
        if not file.exists():
            return _Unfit(socket.gethostname(), __version__, file)
    torch.set_num_threads(1)
    return worker(task)


def _result_of(
    ray: Any,
    worker: Callable[[Task], Result],
    task: Task,
    reference: Any,
    lost: Callable[[Task], Result],
) -> Result:
    errors = ray.exceptions
    try:
        result = ray.get(reference)
    except errors.RayTaskError as error:  # raised by the worker
        raise error.cause from None
    except (errors.WorkerCrashedError, errors.NodeDiedError, errors.OutOfMemoryError):
        return lost(task)
    except errors.RayError as error:
        reason = str(error).split("\n")[0]
        raise TrainingError(
            f"The Ray cluster failed ({reason}). What is done is kept; run the same command again "
            "to go on."
        ) from None
    if not isinstance(result, _Unfit):
        made: Result = result
        return made
    if result.missing is None:
        raise TrainingError(
            f"The machine {result.node} has s2v {result.version}, this one {__version__}. Install "
            "the same version on all machines of the cluster."
        )
    if result.missing.exists():
        raise TrainingError(
            f"The machine {result.node} does not see {result.missing.absolute()}. A cluster needs "
            "storage that all its machines have under the same path."
        )
    return worker(task)  # missing here too, which the worker tells


def _import_ray() -> Any:
    try:
        import ray
        import ray.exceptions
    except ImportError:
        raise DependencyError(
            "Working on a cluster needs Ray. Run: pip install 's2v-cli[cluster]'"
        ) from None
    return ray
