"""The tasks: a row of `glue.py`, a size of `nsmc.py`, or a grammar with a file and one line of its own."""

from trainables.tasks import nsmc_reviews
from trainables.tasks.generated import GRAMMARS
from trainables.tasks.glue import ROWS
from trainables.tasks.task_data import Task

TASKS: dict[str, Task] = {
    task.name: task
    for task in (*(row.task for row in ROWS), *nsmc_reviews.TASKS, *(grammar.task for grammar in GRAMMARS))
}
