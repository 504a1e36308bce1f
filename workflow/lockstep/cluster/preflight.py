"""Can this cluster do what a study asks for? Asked before anything is submitted."""

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from lockstep.cluster import profile, request, slurm
from lockstep.cluster.request import Site
from lockstep.study.run import Scale

# A node that is down at this moment is a matter of waiting, not of asking for something else.
SUSPECTS = {
    "account": "slurm_account",
    "qos": "qos",
    "feature": "constraint",
    "memory": "mem_mb",
    "gres|gpu|tres": "gpus_as",
    "time": "runtime",
    "partition": "slurm_partition",
}
WAITING = ("not available", "busy", "down, drained or reserved")


def problems(site: Site, scales: Iterable[Scale], *, threads: int, alone: bool) -> Iterator[str]:
    """Yield what stands against each scale, with a remedy."""
    yield from _problems(
        site,
        {
            f"scale {scale}": request.options(site, scale, threads=threads, alone=alone)
            for scale in scales
        },
    )


def problems_of_rules(sites: Mapping[str, Site]) -> Iterator[str]:
    """Yield what stands against the ordinary jobs of rules, of which many ask for the same."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for rule, site in sites.items():
        asked = request.simple_options(site, gpu=rule == "trace")
        alike.setdefault(tuple(asked), []).append(rule)
    for asked_by_all, rules in alike.items():
        what = f"rule {', '.join(rules)}"
        for problem in _problems(sites[rules[0]], {what: asked_by_all}):
            yield problem if what in problem else f"{what}: {problem}"


def _problems(site: Site, requests: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Yield what stands against requests at a site, by what makes them."""
    # With the hidden ones, to which sbatch submits all the same.
    status, said = slurm.ask("scontrol", "--all", "show", "partition", "--oneliner")
    if status:
        yield f"SLURM does not answer: {said}"
        return
    known = [fields for fields in map(slurm.fields, said.splitlines()) if "PartitionName" in fields]
    partitions = {fields["PartitionName"]: fields for fields in known}
    names = ", ".join(sorted(partitions))
    chosen = (site.partition or "").split(",") if site.partition else _default(partitions)
    if not chosen:
        yield (
            "this cluster has no default partition; set slurm_partition "
            f"({profile.where('slurm_partition')}) to one of {names}"
        )
        return
    limits = [minutes(partitions[name].get("MaxTime", "")) for name in chosen if name in partitions]
    if site.minutes and limits and 0 not in limits and site.minutes > max(limits):
        where = f"partition {site.partition}" if site.partition else "the default partition"
        yield (
            f"runtime is {site.minutes} minutes, and {where} allows {max(limits):.0f}; change it "
            f"({profile.where('runtime')}): runs longer than a job go on in the next"
        )
        return
    closed = [name for name in chosen if name in partitions and _closed(partitions[name])]
    if closed and len(closed) == len(chosen):
        groups = {partitions[name]["AllowGroups"] for name in closed}
        yield (
            f"nothing can run on this cluster in partition {', '.join(closed)}: it is open to the "
            f"groups {', '.join(sorted(groups))} alone, and you are in none of them; set "
            f"slurm_partition ({profile.where('slurm_partition')}) to another one of {names}"
        )
        return
    for what, asked in requests.items():
        reason = _refusal(asked)
        if reason is None:
            continue
        if site.partition and not limits:
            yield (
                f"there is no partition {site.partition!r}; slurm_partition "
                f"({profile.where('slurm_partition')}) must be one of {names}"
            )
            return
        yield (
            f"{what} cannot run on this cluster ({reason}): sbatch {' '.join(asked)}; change what "
            f"is asked for ({profile.where(_suspect(reason))})"
        )


def _default(partitions: Mapping[str, Mapping[str, str]]) -> list[str]:
    return [name for name, fields in partitions.items() if fields.get("Default") == "YES"]


def _closed(partition: Mapping[str, str]) -> bool:
    """Return whether a partition is closed to this person: sbatch takes a job, which then waits."""
    allowed = partition.get("AllowGroups", "ALL")
    if allowed == "ALL" or os.getuid() == 0:
        return False
    return not {slurm.group(number) for number in (os.getgid(), *os.getgroups())} & set(
        allowed.split(",")
    )


def _refusal(asked: Sequence[str]) -> str | None:
    """Return all that sbatch says against a request, of which the last line says least."""
    status, said = slurm.ask("sbatch", "--test-only", *asked, "--wrap=true", warnings=True)
    lines = [re.sub(r"^(sbatch: )?(error: )?", "", line) for line in said.splitlines()]
    if status == 0 and not any("allocation failure" in line for line in lines):
        return None
    told = [line.removeprefix("allocation failure: ") for line in lines if line]
    reason = "; ".join(dict.fromkeys(told)) or f"status {status}"
    waits = any(word in reason for word in WAITING) and "configuration" not in reason
    return None if waits else reason


def _suspect(reason: str) -> str:
    """Return the resource of which sbatch's refusal speaks."""
    found = (name for words, name in SUSPECTS.items() if re.search(words, reason, re.IGNORECASE))
    return next(found, "default-resources")


def minutes(text: str) -> float:
    """Return a time as SLURM writes it, ``days-hours:minutes:seconds``, in minutes; 0: no limit."""
    found = re.fullmatch(r"(?:(\d+)-)?(\d+):(\d+):(\d+)", text)
    if found is None:
        return 0
    days, hours, mins, secs = (int(part or 0) for part in found.groups())
    return days * 1440 + hours * 60 + mins + secs / 60
