"""From a scale to what SLURM is asked for.

The site's part comes from `default-resources` of profiles/slurm/profile.yaml. On one machine nobody
reads the result: the same rules serve both.
"""

import difflib
import math
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lockstep.errors import UserError, nearest
from lockstep.study.run import Scale

GRES = r"\w+(:[\w.]+)?"  # what Snakemake's SLURM plugin lets pass
MODEL = r"[\w.+-]+"
KNOWN = {
    *("gpus_as", "machine", "runtime", "mem", "mem_mb", "mem_mib", "mem_mb_per_cpu", "tmpdir"),
    *("disk", "disk_mb", "disk_mib", "slurm_partition", "slurm_account", "slurm_extra"),
    *("slurm_cluster", "cluster", "clusters", "constraint", "qos", "nodes", "tasks", "mpi"),
    *("tasks_per_node", "tasks_per_gpu", "cpus_per_task", "cpus_per_gpu", "threads"),
    *("gres", "gpu", "gpu_model", "gpu_manufacturer", "gpus_per_node"),
}
"""Resources that somebody reads; a person may have others, by names that are not like these."""
EXPRESSION = r"\b(attempt|input|threads|wildcards|resources|max|min)\b"  # of Python, for each job
PRODUCT = r"\d+( *\* *\d+)+"  # which Snakemake works out, too
UNITS = {
    "runtime": r"(\d+(?:\.\d+)?) *((?:s|m|h|d|w|sec|min|second|minute|hour|day|week)?s?)",
    "mem_mb": r"(\d+(?:\.\d+)?) *((?:[kmgt]?i?b|[kmgt])?)",
}


@dataclass(frozen=True, kw_only=True)
class Site:
    """What a person set for their cluster, once for all rules.

    Attributes:
        gpus_as: how GPUs are asked for: ``gres=gpu``, ``gres=gpu:a100``, ``gpus-per-node``,
            ``gpus-per-node=a100``, or empty where there are none.
        extra: options of sbatch that every job gets.
        partition, account, constraint, qos, minutes, memory: as SLURM knows them; None if unset.
    """

    gpus_as: str = ""
    extra: str = ""
    partition: str | None = None
    account: str | None = None
    constraint: str | None = None
    qos: str | None = None
    minutes: int | None = None
    memory: int | None = None

    @classmethod
    def of(cls, resources: Mapping[str, Any]) -> "Site":
        """Read the profile's default resources.

        Raises:
            UserError: a resource's name has a slip, GPUs are to be asked for in a way that SLURM
                does not know, or further options have a quote that does not end or are refused by
                Snakemake's plugin.
        """
        for name in sorted(resources.keys() - KNOWN):
            if difflib.get_close_matches(name, KNOWN, n=1):
                raise UserError(
                    f"{name} is no resource that anything reads in the profile; "
                    f"{nearest(name, KNOWN)}"
                )
        text = {name: _unquoted(str(value)) for name, value in resources.items()}
        extra = text.get("slurm_extra", "")
        try:
            shlex.split(extra)
        except ValueError as error:
            raise UserError(
                f"slurm_extra is {extra!r} in the profile ({str(error).lower()}); each quote in it "
                "must end"
            ) from error
        _check_extra(extra)
        return cls(
            gpus_as=_form(text.get("gpus_as", "none")),
            extra=extra,
            partition=text.get("slurm_partition"),
            account=text.get("slurm_account"),
            constraint=text.get("constraint"),
            qos=text.get("qos"),
            minutes=_minutes(text.get("runtime")),
            memory=_megabytes(text.get("mem_mb") or text.get("mem")),
        )


def _check_extra(extra: str) -> None:
    """Refuse what Snakemake's SLURM plugin refuses of each job, by the plugin's own list."""
    try:
        from snakemake_executor_plugin_slurm import validation
    except ImportError:  # no plugin, no jobs
        return
    for pattern, what in validation.get_forbidden_slurm_options().items():
        found = re.search(pattern, extra)
        if found:
            raise UserError(
                f"slurm_extra is {extra!r} in the profile, but the {what} is not set there "
                f"({found.group().strip(' =')}); use a resource of its own, such as "
                "slurm_partition, runtime or mem_mb"
            )


def _unquoted(text: str) -> str:
    """Leave out the quotes around a value, and none within it."""
    quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "'\""
    return text[1:-1] if quoted else text


def _form(gpus_as: str) -> str:
    """Return in which of the ways that work GPUs are asked for.

    SLURM calls models what their maker does, nvidia_a100-sxm4-80gb, and the plugin takes no gres
    with a hyphen. The other way says the same and is not looked at.
    """
    if gpus_as in ("", "none", "None"):
        return ""
    form, _, what = gpus_as.partition("=")
    if form == "gres" and re.fullmatch(GRES, what, re.ASCII):
        return gpus_as
    kind, _, model = what.partition(":")
    if form == "gres" and kind == "gpu" and re.fullmatch(MODEL, model, re.ASCII):
        return f"gpus-per-node={model}"
    if form == "gpus-per-node" and re.fullmatch(f"({MODEL})?", what, re.ASCII):
        return gpus_as
    raise UserError(
        f"gpus_as is {gpus_as!r} in the profile; it must be gres=gpu, gres=gpu:MODEL, "
        "gpus-per-node, gpus-per-node=MODEL or none"
    )


def _minutes(text: str | None) -> int | None:
    """Return a walltime as Snakemake reads it; None for what it works out for each job."""
    found = _amount("runtime", text, "minutes, or a time such as 90m, 2h or 1d")
    if found is None:
        return None
    number, unit = found
    seconds = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
    return int(number) if not unit else max(1, int(number * seconds.get(unit[0], 60) / 60))


def _megabytes(text: str | None) -> int | None:
    """Return an amount of memory as Snakemake reads it."""
    found = _amount("mem_mb", text, "megabytes, or such as 16*1024, 16GB or 16GiB")
    if found is None:
        return None
    number, unit = found
    if not unit:
        return int(number)
    power = "bkmgt".find(unit[0])
    return max(1, math.ceil(number * (1024 if unit[1:2] == "i" else 1000) ** power / 1e6))


def _amount(name: str, text: str | None, allowed: str) -> tuple[float, str] | None:
    """Return a number with its unit in small letters.

    Raises:
        UserError: it is neither that nor an expression for Snakemake.
    """
    if not text or re.search(EXPRESSION, text):
        return None
    if re.fullmatch(PRODUCT, text.strip()):
        return float(math.prod(map(int, text.split("*")))), ""
    found = re.fullmatch(UNITS[name], text.strip().lower())
    if found is None:
        raise UserError(f"{name} is {text!r} in the profile; it must be {allowed}")
    return float(found.group(1)), found.group(2)


def gpus(site: Site, scale: Scale) -> int:
    """Return how many GPUs each node is to have: the scale's devices, on a site that has any."""
    return scale.devices if site.gpus_as else 0


def resources(site: Site, scale: Scale, *, alone: bool = True) -> dict[str, Any]:
    """Return the resources of a job that starts its own steps on all of its nodes.

    Args:
        alone: let nothing else run on the nodes.

    Returns:
        Values for Snakemake's SLURM plugin; None stands for a key that is left out.
    """
    extra = [site.extra] if site.extra else []
    if alone:
        extra.append("--exclusive")
    gres, option = _gpus(site, gpus(site, scale))
    if option:
        extra.append(option)
    return {
        "nodes": scale.nodes,
        # One task a node. The plugin would turn `tasks` into tasks per GPU otherwise.
        "tasks": scale.nodes,
        "tasks_per_gpu": 0,
        # With this key the plugin runs the rule in the batch script, which is what may start
        # steps on all nodes; with a value that is true it refuses less than two tasks.
        "mpi": "srun" if scale.nodes > 1 else "",
        "gres": gres,
        "slurm_extra": " ".join(extra) or None,
        "gpus_per_node": gpus(site, scale),
    }


def one_gpu(site: Site) -> dict[str, Any]:
    """Return the resources of an ordinary job that uses a GPU where there are any."""
    gres, option = _gpus(site, 1 if site.gpus_as else 0)
    extra = " ".join(part for part in (site.extra, option) if part)
    return {"gres": gres, "slurm_extra": extra or None}


def _gpus(site: Site, count: int) -> tuple[str | None, str]:
    """Return `gres` and an option of sbatch, of which at most one says something."""
    if not count:
        return None, ""
    form, _, model = site.gpus_as.partition("=")
    if form == "gres":
        return f"{model}:{count}", ""
    return None, f"--gpus-per-node={model}:{count}" if model else f"--gpus-per-node={count}"


def options(site: Site, scale: Scale, *, threads: int, alone: bool) -> list[str]:
    """Return the same request as options of sbatch, to ask beforehand whether it can be met."""
    asked = resources(site, scale, alone=alone)
    line = [f"--nodes={scale.nodes}", f"--ntasks={scale.nodes}", f"--cpus-per-task={threads}"]
    return [*line, *_of_site(site, asked)]


def simple_options(site: Site, *, gpu: bool) -> list[str]:
    """Return what sbatch is asked for of an ordinary job, as `options` does for one of `train`."""
    asked = one_gpu(site) if gpu else {"gres": None, "slurm_extra": site.extra}
    return ["--ntasks=1", *_of_site(site, asked)]


def place(site: Site) -> list[str]:
    """Return the options of SLURM's commands that say where, and in whose name, a job runs."""
    return _given(
        {
            "--partition": site.partition,
            "--account": site.account,
            "--constraint": site.constraint,
            "--qos": site.qos,
        }
    )


def _of_site(site: Site, asked: Mapping[str, Any]) -> list[str]:
    amounts = {"--time": site.minutes, "--mem": site.memory, "--gres": asked["gres"]}
    return [*place(site), *_given(amounts), *shlex.split(asked["slurm_extra"] or "")]


def _given(options: Mapping[str, Any]) -> list[str]:
    return [f"{option}={value}" for option, value in options.items() if value]
