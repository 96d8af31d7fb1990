"""The real command line in a forked child, with real data, tracking store and report, and with `FakeTraining` instead of Ray."""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any

from orchestrator.execution.cluster import Share
from tests.faults.fake_training import RESIDENTS, FakeTraining


class ReportInThisProcess:
    """Stands for `subprocess.Popen` of `python -m reports`, so that a kill of this process hits the report, too."""

    def __init__(self, command: list[str], **others: Any):
        from reports.__main__ import main

        self._code = main(command[3:])

    def wait(self) -> int:
        return self._code


@contextmanager
def no_cluster(*others: Any) -> Iterator[tuple[Share, Path]]:
    with tempfile.TemporaryDirectory() as folder:
        yield Share(devices=RESIDENTS, cpu=1, gpu=0, per_device=1), Path(folder)


def replace_ray(seed: int, trained: Path) -> None:
    """Replace Ray, the training and the report's process in this process, which has to be a forked child."""
    from orchestrator import delivery, driver

    class TuneRunner:
        def __init__(self, *, sweep: Any, paths: Any, checkpoints: Any, drain: Any, **others: Any):
            self._training = FakeTraining(sweep, paths.checkpoints, checkpoints, trained, seed, drain)

        def run(self, share: Share, folder: Path) -> None:
            self._training.run()

    runner, processes = ModuleType("orchestrator.execution.tune_runner"), ModuleType("subprocess")
    runner.TuneRunner, processes.Popen = TuneRunner, ReportInThisProcess  # type: ignore[attr-defined]
    sys.modules[runner.__name__] = runner
    delivery.subprocess = processes
    driver.cluster, driver.watched = no_cluster, lambda on_loss: nullcontext()


def fork(work: Callable[[], int], log: Path) -> int:
    """Call `work` in a forked child, which ends with the exit code that it returns; return the child's process id.

    Its output goes to the file `log`.
    """
    child = os.fork()
    if child:
        return child
    code = 99
    try:
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        for number in (1, 2):
            os.dup2(file, number)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2))
        code = work()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)
