"""All built-in tasks by name: GLUE, pair classification of SuperGLUE, three sizes of NSMC, and generated ones.

A new task of GLUE or SuperGLUE is an entry of `ROWS` in `glue.py` or `superglue.py`; a new generated task is a file with its
grammar and a line in `generated.GRAMMARS`. Tasks of other packages are added to them (`search_spaces/plugins.py`).
"""

from search_spaces.plugins import with_plugins
from trainables.tasks import glue, nsmc_reviews, superglue
from trainables.tasks.generated import GRAMMARS
from trainables.tasks.task_data import Task, packaged_task

TASKS: dict[str, Task] = with_plugins(
    "tasks",
    {
        task.name: task
        for task in (
            *(row.task for row in glue.ROWS),
            *(row.task for row in superglue.ROWS),
            *nsmc_reviews.TASKS,
            *(grammar.task for grammar in GRAMMARS),
        )
    },
    packaged_task,
)
