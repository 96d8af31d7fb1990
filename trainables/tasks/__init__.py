"""The tasks: a row of `glue.py`, or a grammar with a file and one line of its own."""

from trainables.tasks.contract import Task
from trainables.tasks.generated import GRAMMARS
from trainables.tasks.glue import ROWS

TASKS: dict[str, Task] = {row.task.name: row.task for row in ROWS} | {
    grammar.task.name: grammar.task for grammar in GRAMMARS
}
