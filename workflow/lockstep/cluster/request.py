"""From a scale to what SLURM is asked for.

The site's part comes from `default-resources` of profiles/slurm/profile.yaml. On one machine nobody
reads the result: the same rules serve both.
"""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lockstep.errors import UserError
from lockstep.study.run import Scale

GRES = r"\w+(:[\w.]+)?"  # what Snakemake's SLURM plugin lets pass
MODEL = r"[\w.+-]+"


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
            UserError: GPUs are to be asked for in a way that SLURM does not know, or further
                options have a quote that does not end.
        """
        text = {name: _unquoted(str(value)) for name, value in resources.items()}
        extra = text.get("slurm_extra", "")
        try:
            shlex.split(extra)
        except ValueError as error:
            raise UserError(
                f"slurm_extra is {extra!r} in the profile ({str(error).lower()}); each quote in it "
                "must end"
            ) from error
        return cls(
            gpus_as=_form(text.get("gpus_as", "none")),
            extra=extra,
            partition=text.get("slurm_partition"),
            account=text.get("slurm_account"),
            constraint=text.get("constraint"),
            qos=text.get("qos"),
            minutes=_number(text.get("runtime")),
            memory=_number(text.get("mem_mb") or text.get("mem")),
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


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdigit() else None


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
    for option, value in (
        ("--partition", site.partition),
        ("--account", site.account),
        ("--constraint", site.constraint),
        ("--qos", site.qos),
        ("--time", site.minutes),
        ("--mem", site.memory),
        ("--gres", asked["gres"]),
    ):
        if value:
            line.append(f"{option}={value}")
    return [*line, *shlex.split(asked["slurm_extra"] or "")]
