"""BERT-base on one core: where fusing cannot help, because arithmetic already fills the core.

    python -m benchmarks.bert_base [--rounds 3] [--json FILE]

C3: random weights, 8 x 64 tokens, adapters of width 32; 1, 2 and 4 residents and a lone Hugging Face loop, CPU time per
trial-step. About 1.0 is the expected and honest answer: no speed-up on a CPU is claimed for encoders of this size.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks import measure
from benchmarks.arms import BERT_BASE, CPU, Fused, Lone, make_data, make_trials
from trainables.backbone.backbone import Backbone

RESIDENTS = (1, 2, 4)


def main() -> None:
    parser = measure.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    measure.settle()
    flags = measure.conditions()
    measure.print_conditions(flags)
    data = make_data([64] * 8 * (arguments.rounds + 2), BERT_BASE.vocabulary)
    trials = make_trials(max(RESIDENTS), r=32)
    with tempfile.TemporaryDirectory() as folder:
        model = BERT_BASE.save(Path(folder))
        backbone = Backbone.load(model, CPU)
        arms = {"lone": measure.Arm(step=Lone(model, trials[0], data).step)}
    for K in RESIDENTS:
        arms[f"K={K}"] = measure.Arm(step=Fused(backbone, trials[:K], data).step, units=K)
    seconds = measure.interleaved(arms, arguments.rounds, warm_up=1)
    against_lone = {arm: measure.ratio(seconds["lone"], each) for arm, each in seconds.items() if arm != "lone"}
    against_one = {f"K={K}": measure.ratio(seconds["K=1"], seconds[f"K={K}"]) for K in RESIDENTS[1:]}
    rows = [
        [arm, measure.Spread.of(each), against_lone.get(arm, ""), against_one.get(arm, "")]
        for arm, each in seconds.items()
    ]
    measure.print_table(["arm", "CPU s per trial-step", "faster than lone, times", "faster than K=1, times"], rows)
    print("About 1.0 means: on a CPU, fusing does not make an encoder of this size faster, and we do not claim it.")
    results = {
        "s_per_trial_step": {arm: measure.Spread.of(each) for arm, each in seconds.items()},
        "times_faster_than_lone": against_lone,
        "times_faster_than_one_resident": against_one,
    }
    measure.write(arguments.json, "bert_base", flags, results)


if __name__ == "__main__":
    main()
