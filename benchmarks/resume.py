"""What a driver holds of a sweep and pays for it at a start: memory and CPU of continuing it, and of starting beside it.

    python -m benchmarks.resume [--trials 100] [--cells 20] [--epochs 10] [--folder DIR] [--json FILE]

The sweep's trials are closed-form curves (`benchmarks/fake_worker.py`); its ledger is made first, unless it is in DIR already.
Optuna's TPE is told all trials. MLflow is not part of it.
"""

from __future__ import annotations

import gc
import resource
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from benchmarks import measure
from benchmarks.fake_sweep import COUNTS, make, make_space, make_sweep
from benchmarks.fake_worker import FakeResident
from orchestrator.ledger import Ledger
from orchestrator.search.result_cache import ResultCache
from orchestrator.search.sweep import Sweep
from search_spaces.language import Space
from search_spaces.records import Trial

MB = 1e6


def write_ledger(space: Space, folder: Path) -> None:
    """Run the sweep to its end, with one write to the ledger for each epoch of all running trials."""
    sweep, running = make_sweep(space, folder), []
    with closing(sweep._ledger):
        while not sweep.finished:
            with sweep.transaction():
                while isinstance(trial := sweep.next_trial(), Trial):
                    running.append(FakeResident(trial))
                running = [each for each in running if _epoch(sweep, each)]


def _epoch(sweep: Sweep, resident: FakeResident) -> bool:
    report = resident.report_epoch()
    return sweep.record(resident.trial.id, report.progress, report.outcome, report.test)


def continue_sweep(space: Space, folder: Path) -> dict[str, float]:
    """Open the ledger and rebuild the sweep. Memory is that of the process, above what it had before."""
    before, cpu = _resident(), time.process_time()
    with closing(Ledger.open(folder)) as ledger:
        opened, cpu_opened = _resident(), time.process_time()
        sweep = Sweep(space, ledger, ResultCache(folder, folder), make(space), lambda trial: COUNTS)
        number, held = len(sweep._by_id), _resident() - before
        return {
            "trials": number,
            "ledger_mb": (folder / "ledger.jsonl").stat().st_size / MB,
            "held_kb_per_trial": held / number / 1e3,
            "held_mb": held / MB,
            "held_by_ledger_mb": (opened - before) / MB,
            "peak_mb": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before) / MB,
            "cpu_ledger_s": cpu_opened - cpu,
            "cpu_sweep_s": time.process_time() - cpu_opened,
        }


def start_beside(folder: Path) -> float:
    """CPU seconds for looking through the sweep at the start of another one."""
    began = time.process_time()
    ResultCache(folder.parent, folder.parent / "another")
    return time.process_time() - began


def _resident() -> int:
    """Bytes of memory that the process holds."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def main() -> None:
    parser = measure.parser(__doc__)
    parser.add_argument("--trials", type=int, default=100, help="of each cell")
    parser.add_argument("--cells", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    space = make_space(arguments.trials, arguments.epochs, in_flight=4, cells=arguments.cells, grace=arguments.epochs)
    flags = measure.conditions(clock="CPU time of the process; memory: resident set size")
    with tempfile.TemporaryDirectory() as scratch:
        folder = (arguments.folder or Path(scratch)) / "sweep"
        if not (folder / "ledger.jsonl").exists():
            write_ledger(space, folder)
        found: dict[str, Any] = {**continue_sweep(space, folder), "cpu_of_a_start_beside_it_s": start_beside(folder)}
    measure.print_table(["what", "measured"], [[name, measure.short(value)] for name, value in found.items()])
    measure.write(arguments.json, "resume", flags, found)


if __name__ == "__main__":
    main()
