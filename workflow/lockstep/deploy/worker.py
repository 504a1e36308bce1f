"""One process of the stage: `python -m lockstep.deploy.worker TASK`.

Whatever goes wrong in it becomes the reason in its result: the other routes go on.
"""

import importlib
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

from lockstep import files
from lockstep.cluster.place import Place
from lockstep.deploy.task import Task
from lockstep.errors import UserError
from lockstep.interruption import die_with_parent

LONGEST = 300  # characters of a reason


def main(path: Path) -> None:
    """Do what a task says, and leave its result behind."""
    here = Place.from_environment()
    die_with_parent(here.parent)
    here.pin()
    task = Task.load(path)
    signal.alarm(task.timeout)  # an exporter or a compiler may never end
    files.write_json(Path(task.result), {"reason": None, **outcome(task)})


def outcome(task: Task) -> dict[str, Any]:
    """Do what a task says; returns its result, or why there is none."""
    try:
        found: dict[str, Any] = importlib.import_module(f"lockstep.deploy.{task.kind}").main(task)
    except Exception as error:
        if not isinstance(error, UserError):
            traceback.print_exc()
        return {"reason": reason(error)}
    return found


def reason(error: Exception) -> str:
    """Return an error in one line: what a package said itself, without its traceback."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"{error.name.partition('.')[0]} is not installed here"
    text = " ".join(str(error).split())[:LONGEST]
    if isinstance(error, UserError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


if __name__ == "__main__":
    main(Path(sys.argv[1]))
