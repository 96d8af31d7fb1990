"""The answer at the top of the report: what it recommends, when nothing, and what it says of an unfinished sweep."""

import re

import pytest
from scipy import stats

from reports.__main__ import main
from reports.build import summary
from reports.sections import answer, paper_table, search_quality, winners
from reports.sections.paper_table import LatexOptions
from reports.statistics.answers import answer as conclude
from reports.statistics.intervals import TaskScores
from reports.statistics.standings import ColumnEstimates, _compare
from tests.fixtures.figure_store import in_memory
from tests.fixtures.report_store import FakeTrial, final, known_store, manifest

RATES = {"lr": 1e-4, "batch_size": 8}
SIZES = {"full": 22_000_000, "adapter": 220_000, "madapter": 110_000}


def finished(scores, tasks=("mrpc",), rate=1e-4, validation=80.0, **changes):
    """A sweep with a winner in each cell and finals with these scores, by method: those of the first task, or by task."""
    trials, winners = [], {}
    for task in tasks:
        for method, of in scores.items():
            cell, size = f"minilm/{task}/{method}", (SIZES[method],) * 3
            params = {**RATES, "lr": rate}
            trials.append(FakeTrial(cell=cell, name=f"{cell}-0", params=params, counts=size, scores=(70.0, validation)))
            own = of[task] if isinstance(of, dict) else of
            trials += [final(cell, seed, score, params=params, counts=size) for seed, score in enumerate(own)]
            winners[cell] = f"{cell}-0"
    return in_memory(manifest(["minilm"], tasks, list(scores), **changes), trials, winners)


CLEAR = {"full": (90.0, 90.4, 90.8), "adapter": (90.1, 90.3, 90.5), "madapter": (80.0, 80.3, 80.6)}


def test_a_method_is_recommended_with_setting_score_interval_cost_ties_and_power():
    sweep = finished(CLEAR)
    text = answer.text(sweep)
    column = sweep.standings
    low, high = next(s.interval for c, s in column.items() if c.method == "full")
    assert (
        f"- **MRPC**: use Fine-tuning (lr 0.0001, batch_size 8): accuracy 90.40 \\[{low:.2f}, {high:.2f}\\], constant "
        in text
    )
    assert "constant prediction 68.38; trains 96.9 % of the model's parameters in 33 % of the training hours." in text
    assert (
        "Tied with it: Adapter 90.30, at 1.00 % of its trained parameters and 100 % of its training hours. Worse: "
        in text
    )
    assert "Worse: MAdapter by 10.10." in text
    visible = sorted({f"{s.smallest_significant_gap:.2f}" for s in column.values() if s.gap})
    assert f"Differences below {' to '.join(visible)} points could not have been seen." in text
    assert "*for the configurations found*" in text


def test_the_answer_and_the_table_stand_before_everything_else():
    text = summary(finished(CLEAR))
    head = text.split("## Cost")[0]
    assert re.findall(r"^## (.*)", head, flags=re.MULTILINE)[0] == "Results on the test split"
    assert text.index("| Fine-tuning |") < text.index("Parameter efficiency") < text.index("Which differences are real")
    assert text.index("Which differences are real") < text.index("How the numbers were selected")
    assert len(text[: text.index("| Fine-tuning |")].split()) < 200
    for told in ("Scores: test split. Selected:", "Scores: validation split. Selected:", "beyond", "no results."):
        assert text.count(told) <= 1


def test_a_lead_that_is_noise_is_neither_recommended_nor_bold():
    sweep = finished({"full": (88.0, 90.0, 92.0), "adapter": (88.5, 89.5, 91.5)})
    text = summary(sweep)
    assert (
        "- **MRPC**: no difference between the 2 methods can be seen. The highest mean is that of Fine-tuning" in text
    )
    assert "could not have been seen. More final seeds or test examples show smaller ones." in text
    assert "**9" not in text
    assert "≈" not in text
    assert "| highest mean |" in text
    assert "| best |" not in text


def test_where_nothing_is_learnt_the_answer_says_so_and_what_to_change():
    sweep = finished({"full": (68.0, 68.38, 70.0), "adapter": (60.0, 68.38, 68.38)}, rate=5e-4)
    text = answer.text(sweep)
    assert (
        "- **MRPC**: no method beat a constant prediction (68.38) beyond chance. The highest mean is Fine-tuning's"
        in text
    )
    assert "Try more examples (now 3,301), more epochs (now 20) or a higher learning rate." in text
    assert "The best learning rate is the highest tried for Fine-tuning and Adapter." in text
    assert "use " not in text


def test_the_lowest_learning_rate_is_chance_where_nothing_is_learnt_and_told_where_something_is():
    poor, good = ({"full": (score, score + 0.1, score + 0.2)} for score in (68.2, 90.0))
    assert "lowest tried" not in answer.text(finished(poor, rate=1e-5))
    assert "The best learning rate is the lowest tried for Fine-tuning." in answer.text(finished(good, rate=1e-5))


def test_of_equal_means_the_one_with_fewer_parameters_is_recommended():
    equal = (90.0, 90.2, 90.4)
    text = answer.text(finished({"full": equal, "adapter": equal, "madapter": (80.0, 80.2, 80.4)}))
    assert "use Adapter (lr 0.0001, batch_size 8)" in text
    assert "Tied with it: Fine-tuning 90.20, at 100 times its trained parameters" in text


def test_a_value_that_was_the_only_one_is_no_setting_that_was_chosen():
    record = manifest(["minilm"], ["mrpc"], ["full"])
    record["methods"]["full"]["searched"] = {"lr": {"choice": [1e-4, 1e-3]}, "batch_size": {"choice": [8]}}
    won = [FakeTrial(cell="minilm/mrpc/full", name="a", params=RATES, scores=(80.0,))]
    finals = [final("minilm/mrpc/full", seed, 80.0 + seed, params=RATES) for seed in (1, 2)]
    assert "Fine-tuning (lr 0.0001) is" in answer.text(in_memory(record, [*won, *finals], {"minilm/mrpc/full": "a"}))
    assert "Fine-tuning 80.00 (lr 0.0001; 1 of 2 tried)" in answer.text(in_memory(record, won, {}))


@pytest.mark.parametrize(("score", "learnt"), [(68.38, False), (68.5, True)])
def test_winners_of_searches_that_learnt_nothing_are_named(score, learnt):
    record = manifest(["minilm"], ["mrpc"], ["full"])
    trials = [FakeTrial(cell="minilm/mrpc/full", name="a", params=RATES, scores=(60.0, score))]
    text = winners.text(in_memory(record, trials, {"minilm/mrpc/full": "a"}))
    told = "**No better than a constant prediction on the validation split:** the winners of minilm/mrpc/full. "
    assert (told in text) == (not learnt)


def test_one_seed_judges_no_difference():
    sweep = finished({"full": (90.0,), "adapter": (80.0,)}, budget={"trials": 4, "final_seeds": 1})
    assert (
        "- **MRPC**: with a single final seed no difference can be judged. The highest mean is that of Fine-tuning"
        in (answer.text(sweep))
    )


def test_all_tasks_are_answered_by_their_mean_and_tasks_without_a_learner_are_named():
    by_task = {
        "full": {"mrpc": (90.0, 90.4, 90.8), "rte": (52.0, 53.0, 52.5)},
        "madapter": {"mrpc": (80.0, 80.3, 80.6), "rte": (51.0, 53.5, 52.0)},
    }
    text = answer.text(finished(by_task, tasks=("mrpc", "rte")))
    assert "- **All tasks**, mean: use Fine-tuning: score 71.45" in text
    assert "On RTE no method beat a constant prediction." in text
    nothing = {"full": {"mrpc": (68.0, 68.1, 68.2), "rte": (52.0, 53.0, 52.5)}}
    assert "- **All tasks**: no method beat a constant prediction on any task" in (
        answer.text(finished(nothing, tasks=("mrpc", "rte")))
    )


def column(**scores):
    labels, found = list(scores), TaskScores(list(scores.values()))
    return _compare(
        ColumnEstimates(
            values={label: sum(own) / len(own) for label, own in scores.items()},
            means={label: found.mean(position) for position, label in enumerate(labels)},
            differences={(labels[a], labels[b]): gap for (a, b), gap in found.differences().items()},
            with_examples=False,
        )
    )


@pytest.mark.parametrize("methods", [1, 4])
def test_a_mean_is_above_a_constant_prediction_by_students_t_corrected_for_the_methods(methods):
    scores = {f"m{i}": (70.0 - i, 72.0 - i, 74.0 - i) for i in range(methods)}
    half = stats.t.ppf(1 - 0.025 / methods, 2) * 2 / 3**0.5
    for baseline, learnt in ((72.0 - half - 0.01, True), (72.0 - half + 0.01, False)):
        assert ("m0" not in conclude(column(**scores), baseline).constant) == learnt


def test_conclusions_from_few_scores():
    assert conclude({}, 50.0).outcome == "no result"
    assert conclude(column(a=(70.0,), b=(60.0,)), 50.0).outcome == "not judged"
    assert conclude(column(a=(50.0,), b=(40.0,)), 50.0).outcome == "nothing learnt"
    assert conclude(column(a=(70.0, 70.1, 70.2)), None).outcome == "one method"
    found = conclude(column(a=(70.0, 70.1, 70.2), b=(60.0, 60.1, 60.2), c=(70.0, 70.1, 70.2)), 50.0)
    assert (found.outcome, found.best, found.tied, found.worse) == ("different", "a", ("c",), ("b",))


def test_an_unfinished_sweep_says_what_it_knows_and_calls_nothing_running():
    cell = "minilm/mrpc/{}".format
    trials = [
        FakeTrial(cell=cell("full"), name="a", scores=(70.0, 82.14)),
        FakeTrial(cell=cell("full"), name="b", scores=(60.0, 65.0), params={"lr": 5e-4, "batch_size": 8}),
        FakeTrial(cell=cell("adapter"), name="c", state="RUNNING", counts=None),
    ]
    sweep = in_memory(manifest(["minilm"], ["mrpc"], ["full", "adapter"]), trials, {})
    text = summary(sweep)
    assert (
        "> **So far:** 0 of 2 cells complete; search unfinished: 2. Missing: 6 trials of the search and 6 finals."
        in text
    )
    assert (
        "no final has a result. Best validation scores so far, maxima of a search (constant prediction on the test split: 68.38)"
        in text
    )
    assert "Fine-tuning 82.14 (lr 0.0001, batch_size 8; 2 of 4 tried); Adapter – (0 of 4 tried)" in text
    assert "running" not in text
    assert "searching" not in text
    assert "MRPC: the search is not over." in search_quality.text(sweep)
    assert "unlikely to change who leads" not in text


def test_a_lead_within_the_noise_of_the_validation_split_settles_nothing():
    """367 examples: 95 % intervals of an accuracy of 80 reach 4.09 points."""
    winners = {f"minilm/mrpc/{method}": f"{method}1" for method in ("full", "adapter")}
    trials = [
        FakeTrial(
            cell=f"minilm/mrpc/{m}",
            name=f"{m}{i}",
            scores=(best - 20 * (i == 0),),
            params={"lr": 1e-4 * (i + 1), "batch_size": 8},
        )
        for m, best in (("full", 80.0), ("adapter", 76.0))
        for i in range(4)
    ]
    sweep = in_memory(manifest(["minilm"], ["mrpc"], ["full", "adapter"]), trials, winners)
    assert "Fine-tuning leads by 4.00, less than what the choice of validation examples explains (± 4.09)." in (
        search_quality.text(sweep)
    )


def test_the_latex_table_has_parameters_beside_scores_and_explains_its_marks(known_sweep):
    text = paper_table.latex(known_sweep, LatexOptions(digits=1))
    assert r"Model & Method & Trained & MRPC (accuracy) & STS-B (pearson) & Average \\" in text
    assert r"MiniLM-L6 & Fine-tuning & 96.9 \% & 85.0 $\pm$ 1.0" in text
    assert r"BERT base & Fine-tuning & 20.1 \% & \textbf{88.2 $\pm$ 0.3}" in text
    assert text.count(r"\begin{table}") == text.count(r"\midrule") - 1 == 1
    told = text.split(r"\caption{")[1].split("\n")[0]
    assert all(
        mark in told
        for mark in (r"\dag{}: finals", r"\textbf{bold}: the best", r"$\rightarrow$: a winning", "Scores: test split.")
    )
    assert r"\emph{Smallest visible difference, BERT base}" in text


def test_columns_metric_and_digits_of_the_latex_table_are_chosen_on_the_command_line(known_sweep, tmp_path, capsys):
    chosen = LatexOptions(metric="pearson", digits=0, columns=("hours", "stsb", "mrpc"))
    text = paper_table.latex(known_sweep, chosen)
    assert r"Model & Method & Hours & STS-B (pearson) \\" in text
    assert "BERT base & Fine-tuning" in text
    assert "accuracy" not in text
    store = ["--tracking-uri", known_store(), "--out", str(tmp_path / "out")]
    for option, value, message in (
        ("--latex-metric", "pearsn", "--latex-metric 'pearsn' is measured on no task: did you mean 'pearson'?"),
        ("--latex-columns", "mrpc,sts", "--latex-columns 'sts' is no column: did you mean 'stsb'?"),
    ):
        assert main([*store, option, value]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
