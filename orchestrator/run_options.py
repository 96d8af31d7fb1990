"""The options of one run, as the command line or a test gives them: made once, read by plan, forecast, checks and driver.

Knows nothing of argparse. None stands for an option that was not given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """The first seven change what a space says, and so the sweep; the others say where and with what it runs."""

    # Names from the space, except that any model may be named; None keeps all of the space's.
    models: Sequence[str] | None = None
    tasks: Sequence[str] | None = None
    methods: Sequence[str] | None = None
    # Configurations per cell (--trials).
    num_configurations: int | None = None
    # Fresh seeds for each winner (--seeds).
    final_seeds: int | None = None
    # Most epochs of a trial.
    epochs: int | None = None
    # Of matrix products: "fp32" or "bf16".
    precision: str | None = None

    # 0 trains on the CPU.
    gpus: int = 0
    # Trials that share a GPU or a core; 0: as many as fill a GPU, one on a core.
    trials_per_device: int = 0
    # Time that all drivers of the sweep together may spend: "40h".
    budget: str | None = None
    # GLUE as TSV files; None: from the Hub.
    data_dir: Path | None = None
    # Ledgers, checkpoints and the default tracking store.
    out: Path = Path("runs")
    # Where the report is written.
    report: Path = Path("reports")
    # Address of an MLflow store; None: sqlite in `out`.
    tracking_uri: str | None = None
    # Address of a Ray cluster to join; None: start one.
    address: str | None = None
    # The command that repeats this run.
    command: str = ""
