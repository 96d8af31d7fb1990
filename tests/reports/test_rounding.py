"""The best of a column is decided by the digits that the table prints, computed and not read back from text."""

import math

import pytest

from reports.render.markdown import points
from reports.statistics.rounding import round_as_printed
from reports.statistics.standings import ColumnEstimates, task_standings
from search_spaces.language import Cell

TIES = (0.125, 2.675, 1.005, 87.125, 87.135, 0.005, 99.995, -0.125, -2.675)


@pytest.mark.parametrize(
    "score", [near for tie in TIES for near in (tie, math.nextafter(tie, 1e3), math.nextafter(tie, -1e3))]
)
def test_a_score_is_rounded_to_the_number_that_is_printed(score):
    assert round_as_printed(score) == float(points(score))


def best(**values):
    column = ColumnEstimates(values=values, means=dict.fromkeys(values), differences={}, with_examples=False)
    return {cell.method for cell, standing in task_standings({("model", "task"): column}).items() if standing.best}


def test_methods_that_print_the_same_score_are_best_together():
    assert best(a=87.1251, b=87.1349, c=87.12) == {"a", "b"}


def test_a_score_on_the_other_side_of_a_rounding_boundary_is_not_the_best():
    assert best(a=87.1349, b=87.1351) == {"b"}
    assert best(a=0.125, b=0.1250001) == {"b"}, "0.125 is printed as 0.12"


def test_the_standing_of_a_method_is_found_by_its_cell():
    column = ColumnEstimates(values={"a": 1.0}, means={"a": None}, differences={}, with_examples=False)
    assert list(task_standings({("m", "t"): column})) == [Cell(model="m", task="t", method="a")]
