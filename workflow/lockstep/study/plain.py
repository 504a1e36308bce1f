"""Reads a config file, of which YAML allows more than a study can mean."""

import math
from pathlib import Path
from typing import Any

import yaml

from lockstep.errors import UserError

PLAIN = (str, bool, int, float, type(None))


class _Loader(yaml.SafeLoader):
    """Refuses a key that is given twice, of which YAML's own loader keeps the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    line = key.start_mark.line + 1
                    raise UserError(f"line {line}: key {key.value!r} is given twice; keep one")
                seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


def read(path: Path) -> dict[str, Any]:
    """Return what a config file holds.

    Raises:
        UserError: it is missing, is not YAML, or gives a key twice.
    """
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 (byte {error.start}); save it as UTF-8") from error
    except RecursionError as error:
        raise UserError(f"{path}: is nested too deeply for a config") from error
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path}: {_place(error)}") from error
    if not isinstance(raw, dict):
        raise UserError(f"{path}: holds no keys; see config.yaml for a commented example")
    return raw


def _place(error: yaml.YAMLError) -> str:
    """Say where YAML ends, in one line."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    if mark is None:
        return f"not valid YAML: {' '.join(str(error).split())}"
    problem = getattr(error, "problem", None) or getattr(error, "context", None)
    return (
        f"line {mark.line + 1}, column {mark.column + 1}: not valid YAML ({problem}); compare the "
        "line and the one before it with config.yaml: indentation, brackets, quotes, colons"
    )


def changed(config: dict[str, Any], by: dict[str, Any]) -> dict[str, Any]:
    """Return a config with the values of another; mappings are changed key by key."""
    both = {
        key: changed(config[key], value)
        for key, value in by.items()
        if isinstance(value, dict) and isinstance(config.get(key), dict)
    }
    return {**config, **by, **both}


def problem(value: Any, at: str = "") -> str | None:
    """Return the first thing in a config that JSON has not, in a person's words.

    Its hash is an identity and jobs read it as JSON: there are texts, finite numbers, true, false,
    null, lists, and mappings from texts.
    """
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str):
                where = at or "the top level"
                return f"key {key!r} at {where} is not a text; put it into quotes or rename it"
            found = problem(inner, f"{at}.{key}".lstrip("."))
            if found:
                return found
        return None
    if isinstance(value, list):
        return next(filter(None, (problem(v, f"{at}[{k}]") for k, v in enumerate(value))), None)
    if not isinstance(value, PLAIN):
        kind = type(value).__name__
        return f"{at} is {value}, which YAML reads as a {kind}; put it into quotes"
    if isinstance(value, float) and not math.isfinite(value):
        return f"{at} is {value}; it must be finite"
    if isinstance(value, str) and "\0" in value:
        return f"{at} is {value!r}; it must not hold a zero byte"
    return None
