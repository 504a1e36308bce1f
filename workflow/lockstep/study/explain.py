"""Says what the schema of a config finds as a person would: key, problem, remedy."""

import re
from typing import Any

import jsonschema

from lockstep.errors import nearest, number_hint, shown

KINDS = {
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "string": "a text",
    "array": "a list",
    "object": "keys with values",
    "null": "null",
}


def explain(error: jsonschema.ValidationError) -> str:
    """Return a finding in one line."""
    path = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in error.path).lstrip(".")
    at = path or "the top level"
    schema: Any = error.schema
    expected: Any = error.validator_value
    instance: Any = error.instance
    here = f"{at} is {shown(instance)}"
    if "propertyNames" in error.schema_path:
        here = f"{at} has the name {instance!r}"
    if error.validator == "additionalProperties":
        known = set(schema.get("properties", {}))
        unknown = sorted(map(str, set(instance) - known))[0]
        return f"unknown key {unknown!r} at {at}; {nearest(unknown, known)}"
    if error.validator == "required":
        missing = next(key for key in expected if key not in instance)
        return f"key {missing!r} is missing at {at}"
    if error.validator == "enum":
        return f"{here}; {nearest(str(instance), expected)}"
    if error.validator == "type":
        return (
            f"{here}; write {_right([expected] if isinstance(expected, str) else expected, error)}"
        )
    if error.validator in ("minimum", "exclusiveMinimum"):
        relation = "at least" if error.validator == "minimum" else "greater than"
        return f"{here}; it must be {relation} {expected}"
    if error.validator == "maximum":
        return f"{here}; it must be at most {expected}"
    if error.validator == "pattern":
        return f"{here}; write something such as {_examples(schema)}"
    if error.validator in ("minItems", "minProperties", "minLength"):
        write = ": write" if "examples" in schema else ""
        return f"{here}; it must not be empty{write} {_examples(schema)}".rstrip()
    if error.validator == "uniqueItems":
        twice = next(item for k, item in enumerate(instance) if item in instance[:k])
        return f"{at} holds {shown(twice)} twice; keep one of them"
    return f"{at}: {error.message}"


def _right(kinds: list[str], error: jsonschema.ValidationError) -> str:
    """Say what to write instead of a value of another type."""
    instance: Any = error.instance
    schema: Any = error.schema
    scalar = instance is not None and not isinstance(instance, list | dict)
    if kinds[0] == "array" and scalar:
        if jsonschema.Draft202012Validator(schema["items"]).is_valid(instance):
            return f"a list: [{instance}]"
        return f"a list, such as {schema['examples'][0]}" if "examples" in schema else "a list"
    if kinds[0] == "string" and scalar:
        if "pattern" in schema and not re.fullmatch(schema["pattern"], str(instance)):
            return f"something such as {_examples(schema)}"
        return f"a text, in quotes: '{instance}'"
    if kinds[0] == "integer" and isinstance(instance, float) and instance.is_integer():
        return f"a whole number: {int(instance)}"
    words = " or ".join(KINDS[kind] for kind in kinds)
    if kinds[0] == "number":
        return words + number_hint(instance)
    if kinds[0] == "object" and schema.get("required"):
        return f"{words}, at least {' and '.join(schema['required'])}"
    if "default" in schema and schema["default"] not in (None, {}):
        return f"{words}, such as {shown(schema['default'])}"
    return words


def _examples(schema: Any) -> str:
    """Return what is right instead of a pattern, which a person need not read."""
    examples = " or ".join(map(str, schema.get("examples", ())))
    about = f"({schema['description']})" if "description" in schema else ""
    return f"{examples} {about}".strip()
