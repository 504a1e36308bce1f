"""The JSON Schemas of the records (`workflow/schemas/*.schema.json`), compiled once.

What they do not name is allowed: a record may hold more than the report and the archive read.
Numbers must be finite, and an integer is written as one: 1.0 and true are none.
"""

import functools
import json
import math
from pathlib import Path
from typing import Any

import jsonschema

SCHEMAS = Path(__file__).resolve().parents[2] / "schemas"

SUMMARY, BLOCK, JOB, DEPLOY = "summary", "block", "job", "deploy"
VERDICT, DATASET, IMAGE, ARCHIVE = "verdict", "dataset", "image", "archive"
"""What may be checked: the name of a schema's file."""


def _integer(_: Any, value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(_: Any, value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


Validator = jsonschema.validators.extend(
    jsonschema.Draft202012Validator,
    type_checker=jsonschema.Draft202012Validator.TYPE_CHECKER.redefine_many(
        {"integer": _integer, "number": _number}
    ),
)


@functools.cache
def _compiled(name: str) -> Any:
    return Validator(json.loads((SCHEMAS / f"{name}.schema.json").read_bytes()))


def unsound(value: Any, name: str) -> str | None:
    """Return the first field that is missing or not of its kind, as a path; None if none is.

    Args:
        name: one of the constants above. An empty path is the value itself.
    """
    error = next(_compiled(name).iter_errors(value), None)
    if error is None:
        return None
    path = [str(part) for part in error.absolute_path]
    if error.validator == "required":
        path.append(next(key for key in error.validator_value if key not in error.instance))
    return ".".join(path)
