"""All built-in tasks by name: GLUE (`glue.py`), three sizes of NSMC (`nsmc_reviews.py`) and generated ones.

A new GLUE task is a row in `glue.ROWS`; a new generated task is a file with its grammar and a line in `generated.GRAMMARS`.
Tasks of other packages are added to them (`search_spaces/plugins.py`).
"""

from search_spaces.plugins import with_plugins
from trainables.tasks import nsmc_reviews
from trainables.tasks.generated import GRAMMARS
from trainables.tasks.glue import ROWS
from trainables.tasks.task_data import Task, packaged_task

TASKS: dict[str, Task] = with_plugins(
    "tasks",
    {
        task.name: task
        for task in (*(row.task for row in ROWS), *nsmc_reviews.TASKS, *(grammar.task for grammar in GRAMMARS))
    },
    packaged_task,
)
