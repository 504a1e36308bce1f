"""Reads a study's config: checks it against the schema and fills in every default."""

import copy
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import yaml
from packaging import licenses

from lockstep import workloads
from lockstep.datasets import sources
from lockstep.errors import UserError, nearest
from lockstep.study import plain
from lockstep.study.explain import explain
from lockstep.workloads import recipe

SCHEMA = Path(__file__).resolve().parents[2] / "schemas" / "config.schema.yaml"

MODES = {"torch": ("eager", "compile"), "jax": ("eager", "jit")}
ONLY = {  # option of a variant: (framework that knows it, value that means "not used")
    "convolution": ("jax", "native"),
    "memory_format": ("torch", "contiguous"),
    "steps_per_dispatch": ("jax", 1),
    "process": ("jax", "device"),
}


ADDRESS = re.compile(r"https?://\S+")


def _matches(
    validator: Any, pattern: str, instance: Any, schema: Any
) -> Iterator[jsonschema.ValidationError]:
    """Hold a text to a pattern, all of it: `$` alone lets a newline at the end pass."""
    if isinstance(instance, str) and not re.fullmatch(pattern, instance):
        yield jsonschema.ValidationError(f"{instance!r} does not match {pattern}")


# JSON Schema has 2.0 for an integer, which is none in Python.
Validator = jsonschema.validators.extend(
    jsonschema.Draft202012Validator,
    {"pattern": _matches},
    type_checker=jsonschema.Draft202012Validator.TYPE_CHECKER.redefine(
        "integer", lambda _, value: type(value) is int
    ),
)


def load(*paths: Path) -> dict[str, Any]:
    """Read, check and complete a config file; others change it key by key, as Snakemake has it.

    Raises:
        UserError: a file is missing, is not YAML, or breaks the schema.
    """
    raw: dict[str, Any] = {}
    for path in paths:
        raw = plain.changed(raw, plain.read(path))
    return complete(raw, where=", ".join(map(str, paths)))


def complete(raw: dict[str, Any], *, where: str = "config") -> dict[str, Any]:
    """Return a checked copy of `raw` in which every key of the schema has a value.

    Workload entries hold the whole recipe: the workload's own, overridden by the entry.

    Raises:
        UserError: names the key, what is wrong with it and what would be right.
    """
    odd = plain.problem(raw)
    if odd:
        raise UserError(f"{where}: {odd}")
    config = copy.deepcopy(raw)
    schema = yaml.safe_load(SCHEMA.read_text())
    _fill(config, schema)
    problem = _problem(config, schema)
    if problem:
        raise UserError(f"{where}: {problem}")
    for name, variant in config["variants"].items():
        _check_variant(f"{where}: variants.{name}", variant, config["window_steps"])
    for name, entry in config["datasets"].items():
        here = f"{where}: datasets.{name}"
        if sources.is_path(entry["source"]):
            entry["file"] = str(Path(entry["source"]).resolve())
            entry["source"] = sources.adopt(Path(entry["file"]), where=here)
        sources.check(here, entry["source"])
        sources.check_options(f"{where}: datasets.{name}", entry["source"], entry["options"])
    for name, entry in config["workloads"].items():
        config["workloads"][name] = _resolve_workload(f"{where}: workloads.{name}", name, entry)
        if entry["dataset"] not in config["datasets"]:
            raise UserError(
                f"{where}: workloads.{name}.dataset is {entry['dataset']!r}, which datasets does "
                f"not define; {nearest(entry['dataset'], config['datasets'])}"
            )
    _check_licence(where, config["archive"]["licence"])
    _check_authors(where, config["archive"]["authors"])
    _check_inputs(where, config)
    _check_scales(where, config)
    seed = (config["deploy"] or {}).get("seed")
    if seed is not None and seed not in config["seeds"]:
        raise UserError(
            f"{where}: deploy.seed is {seed}, of which there is no run; choose one of seeds: "
            + ", ".join(map(str, config["seeds"]))
        )
    return config


def check_complete(config: Any) -> None:
    """Check a config that `complete` once made, such as ``study.json``'s.

    Recipes are not looked into: workloads and sources need not be among those of this version.

    Raises:
        UserError: it is none, or that of another version.
    """
    if not isinstance(config, dict):
        raise UserError("it holds no keys")
    filled, schema = copy.deepcopy(config), yaml.safe_load(SCHEMA.read_text())
    _fill(filled, schema)
    problem = _problem(filled, schema)
    if problem:
        raise UserError(problem)
    lacking = [k for k in filled if k != "archive" and filled[k] != config.get(k)]
    if lacking:
        raise UserError(f"it is not complete at {lacking[0]}")
    modules = [entry["source"] for entry in config["datasets"].values()]
    for name, entry in config["workloads"].items():
        modules.append(entry.get("workload"))
        if entry["dataset"] not in config["datasets"]:
            raise UserError(f"workloads.{name} has a dataset that is not defined")
    for module in modules:
        if not (isinstance(module, str) and module.isidentifier()):
            raise UserError(f"{module!r} is no name of a workload or a source")


def _fill(value: Any, schema: Any) -> None:
    """Put the schema's defaults where keys are absent, at every depth."""
    if not isinstance(value, dict):
        return
    for key, inner in schema.get("properties", {}).items():
        if key not in value and "default" in inner:
            value[key] = copy.deepcopy(inner["default"])
        if key in value:
            _fill(value[key], inner)
    others = schema.get("additionalProperties")
    if isinstance(others, dict):
        for key in set(value) - set(schema.get("properties", {})):
            _fill(value[key], others)


def _problem(value: Any, schema: Any) -> str | None:
    """Return the schema's first finding, in a person's words."""
    errors = sorted(Validator(schema).iter_errors(value), key=lambda e: list(map(str, e.path)))
    return explain(errors[0]) if errors else None


def _check_variant(where: str, variant: dict[str, Any], window_steps: int) -> None:
    framework = variant["framework"]
    if variant["mode"] not in MODES[framework]:
        raise UserError(
            f"{where}.mode is {variant['mode']!r}; {framework} has "
            + " and ".join(MODES[framework])
        )
    for option, (owner, unused) in ONLY.items():
        if framework != owner and variant[option] != unused:
            raise UserError(f"{where}.{option} is for {owner} variants; remove it here")
    if variant["steps_per_dispatch"] > 1 and variant["mode"] != "jit":
        raise UserError(f"{where}.steps_per_dispatch is for mode jit; remove it here")
    if variant["steps_per_dispatch"] > window_steps:
        raise UserError(
            f"{where}.steps_per_dispatch is {variant['steps_per_dispatch']}, more than the "
            f"{window_steps} steps of a window (window_steps), so that it would never be used"
        )


def _resolve_workload(where: str, name: str, entry: dict[str, Any]) -> dict[str, Any]:
    kind = entry.get("workload", name)
    here, folder = f"{where}.workload" if "workload" in entry else where, None
    if workloads.is_path(kind):
        folder = str(Path(kind).resolve())
        kind = workloads.adopt(Path(folder), where=here)
    spec = workloads.spec(kind, where=here)
    overrides = {k: v for k, v in entry.items() if k not in ("workload", "dataset", "folder")}
    resolved = recipe.override(spec.recipe, overrides, where=where)
    problem = recipe.problem(resolved, spec) or spec.check(resolved, 1)
    if problem:
        raise UserError(f"{where}: {problem}")
    if resolved["start"]:
        path = Path(resolved["start"]).resolve()
        if not path.is_file():
            raise UserError(f"{where}.start is {resolved['start']!r}, which is no file")
        resolved["start"] = str(path)
    outside = {"folder": folder} if folder else {}
    return {"workload": kind, **outside, "dataset": entry["dataset"], **resolved}


def _check_licence(where: str, licence: str | None) -> None:
    """Refuse what is neither an address nor one of SPDX's licences.

    Not a matter of the schema: older studies, which have such a licence, are still read.
    """
    if licence is None or ADDRESS.fullmatch(licence):
        return
    try:
        known = str(licenses.canonicalize_license_expression(licence))
    except licenses.InvalidLicenseExpression:
        known = None
    if known != licence or " " in licence:
        right = "write an SPDX identifier (such as CC-BY-4.0 or MIT) or an http(s) address"
        if known and " " not in known:
            right = f"write {known}"
        raise UserError(f"{where}: archive.licence is {licence!r}; {right}")


def _check_authors(where: str, authors: list[dict[str, Any]]) -> None:
    """Refuse an ORCID whose last character is not the check digit of the others (ISO 7064)."""
    for number, author in enumerate(authors):
        if "orcid" in author:
            total = 0
            for digit in author["orcid"].replace("-", "")[:-1]:
                total = (total + int(digit)) * 2
            check = (12 - total % 11) % 11
            if author["orcid"][-1] != ("X" if check == 10 else str(check)):
                raise UserError(
                    f"{where}: archive.authors[{number}].orcid is {author['orcid']!r}, which has a "
                    "wrong digit; copy it from the author's page on orcid.org"
                )


def _check_inputs(where: str, config: dict[str, Any]) -> None:
    native = [n for n, variant in config["variants"].items() if variant["input"] == "native"]
    for name, entry in config["workloads"].items():
        if native and entry["augment"]["name"] != "none":
            raise UserError(
                f"{where}: variants.{native[0]}.input is native, which cannot augment as "
                f"workloads.{name}.augment asks ({entry['augment']['name']}: its parameters belong "
                "to the shared order); use input: shared, or augment: {name: none}"
            )


def _check_scales(where: str, config: dict[str, Any]) -> None:
    for scale in config["scales"]:
        nodes, processes = map(int, scale.split("x"))
        world = nodes * processes
        for name, entry in config["workloads"].items():
            if entry["global_batch"] % world:
                raise UserError(
                    f"{where}: workloads.{name}.global_batch is {entry['global_batch']}, which "
                    f"scale {scale} (world size {world}) does not divide; choose a multiple of "
                    f"{world} or another scale"
                )
            parts = world * entry["accumulation"]
            if entry["global_batch"] % parts:
                raise UserError(
                    f"{where}: workloads.{name}.global_batch is {entry['global_batch']}, which "
                    f"{entry['accumulation']} micro-batches at scale {scale} do not divide; choose "
                    f"a multiple of {parts}"
                )
            problem = workloads.of(entry).check(entry, world)
            if problem:
                raise UserError(f"{where}: workloads.{name} at scale {scale}: {problem}")
