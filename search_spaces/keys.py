"""Names of tags, metrics and artifacts in MLflow. The orchestrator writes them, the reports read them.

A space is an MLflow experiment. Each sweep has a run; each cell has a run that is a child of the sweep's; each trial has a run
that is a child of its cell's.
"""

PARENT = "mlflow.parentRunId"

# Tags of every run.
KIND = "peft.kind"  # "sweep", "cell" or "trial"
SWEEP = "peft.sweep"  # sweep id
DUPLICATE = "peft.duplicate"  # "true" on a duplicate run of a trial, cell or sweep, made when a response was lost
# Tags of the sweep's run.
STAMP = "peft.stamp"  # options that made the sweep smaller than its space ("--epochs 2", ...); empty if there were none
COMMAND = "peft.command"  # the command that continues or repeats the sweep
CURTAILED = "peft.curtailed"  # the time budget that ended the searches ("40h"), empty when none did
EXTENDED = "peft.extended"  # "true": the searches were resumed after a time budget had ended them
POSITION = "peft.position"  # number of the ledger's events that have been written to MLflow
# Tags of cells and trials.
CELL = "peft.cell"  # "model/task/method label"
MODEL, TASK, METHOD = "peft.model", "peft.task", "peft.method"
# Tags of trials.
TRIAL = "peft.trial"  # trial id
PHASE = "peft.phase"  # "search", "final", or "replaced": a final of a configuration that is no longer the winner
STATE = "peft.state"  # a State of search_spaces.records; RUNNING until the trial ends
REASON = "peft.reason"
CACHED = "peft.cached"  # "true" when the result was taken from another sweep
COLLAPSED = "peft.collapsed"  # "true": all predictions on the test split are (in regression: almost) equal
DIVERGED = "peft.diverged"  # "true": the training loss was not finite
WINNER = (
    "peft.winner"  # trial id of the cell's winner, on the cell's run; of its second search "peft.winner.1", and so on
)
SEARCH = "peft.search"  # number of the cell's search that a trial belongs to, from 1; missing for those of the first, number 0

# Metrics of trials; step = epoch.
SCORE, LOSS, SECONDS, MEMORY = "score", "loss", "seconds", "memory_mib"
# Regression only: the loss is in squared standard deviations of the train targets, this one in squared units of the targets.
TARGET_LOSS = "loss_target_units"
# Metrics of trials, written once at the end.
BEST_SCORE, BEST_EPOCH, EPOCHS = "best_score", "best_epoch", "epochs"
COUNTS = "params."  # + weights, module, trained, total, or stored: number of tensor elements in the trial's checkpoint
SAVED_BYTES = "saved_bytes"  # size of the checkpoint's file
TEST = "test."  # + metric name: score on the test split in percent points; finals only

# Artifacts.
SWEEP_FILE = "sweep.json"  # of the sweep's run: the manifest (see orchestrator/planning/sweep_manifest.py)
ABLATION_FILE = "ablation.json"  # of an ablated final's run: a search_spaces.records.Ablation as JSON
PREDICTIONS_FILE = "predictions.json"  # of a final's run: {"predictions": [...], "labels": [...], "checksum": n}


def winner_of(search: int) -> str:
    """Return the name of the tag with the winner of this search of the cell; searches count from 0."""
    return f"{WINNER}.{search}" if search else WINNER
