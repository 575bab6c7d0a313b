from .learning import Learning, Watched
from .recognition import task_of, task_of_output
from .table import TASKS
from .task import TASK_NAMES, Bound, Task, TaskName

__all__ = [
    "TASKS",
    "TASK_NAMES",
    "Bound",
    "Learning",
    "Task",
    "TaskName",
    "Watched",
    "task_of",
    "task_of_output",
]
