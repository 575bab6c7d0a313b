from .networks import family, progressive, scaled
from .protocol import Budget
from .recommendation import recommend
from .report.write import write_report
from .scaling_study import StudyResult, run
from .scheduler import TrainingArguments
from .statistics.answers import answer
from .summary import summarize

__all__ = [
    "Budget",
    "StudyResult",
    "TrainingArguments",
    "answer",
    "family",
    "progressive",
    "recommend",
    "run",
    "scaled",
    "summarize",
    "write_report",
]
