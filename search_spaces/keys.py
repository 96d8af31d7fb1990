"""Names under which a sweep is kept in MLflow: written by the orchestrator, read by the reports.

Experiment = space. Runs: one per sweep; one per cell, child of the sweep; one per trial, child of its cell.
"""

PARENT = "mlflow.parentRunId"

# Tags of every run.
KIND = "peft.kind"  # "sweep", "cell" or "trial"
SWEEP = "peft.sweep"  # sweep id
DUPLICATE = "peft.duplicate"  # "true" on a second run of the same trial, cell or sweep, made when a response got lost
# Tags of the sweep's run.
STAMP = "peft.stamp"  # how the run was smaller than its space ("--epochs 2", ...); empty for a full run
COMMAND = "peft.command"  # the command that continues or repeats the sweep
CURTAILED = "peft.curtailed"  # the time budget that ended the searches ("40h"), empty when none did
EXTENDED = "peft.extended"  # "true": the searches were resumed after a time budget had ended them
POSITION = "peft.position"  # number of ledger events already written
# Tags of cells and trials.
CELL = "peft.cell"  # "model/task/method label"
MODEL, TASK, METHOD = "peft.model", "peft.task", "peft.method"
# Tags of trials.
TRIAL = "peft.trial"  # trial id
PHASE = "peft.phase"  # "search", "final", or "replaced": a final of a former winner
STATE = "peft.state"  # a State of search_spaces.records; RUNNING until the trial ends
REASON = "peft.reason"
CACHED = "peft.cached"  # "true" when the result was taken from another sweep
COLLAPSED = "peft.collapsed"  # "true": constant predictions on the test split
DIVERGED = "peft.diverged"  # "true": the loss stopped being finite
WINNER = "peft.winner"  # trial id of the cell's winner, on the cell's run

# Metrics of trials; step = epoch.
SCORE, LOSS, SECONDS, MEMORY = "score", "loss", "seconds", "memory_mib"
# Metrics of trials, written once at the end.
BEST_SCORE, BEST_EPOCH, EPOCHS = "best_score", "best_epoch", "epochs"
COUNTS = "params."  # + weights, module, trained, total; stored: numbers in the file that keeps a trial's best epoch
SAVED_BYTES = "saved_bytes"  # size of that file
TEST = "test."  # + metric name, percent points; finals only

# Artifacts.
SWEEP_FILE = "sweep.json"  # of the sweep's run: its manifest (see orchestrator/planning/sweep_manifest.py)
ABLATION_FILE = "ablation.json"  # of an ablated final's run: search_spaces.records.Ablation
PREDICTIONS_FILE = "predictions.json"  # of a final's run: {"predictions": [...], "labels": [...]}
