"""Can this cluster do what a study asks for? Asked before anything is submitted."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from lockstep.cluster import request, slurm, submit
from lockstep.cluster.request import Site
from lockstep.study.run import Scale

# A node that is down at this moment is a matter of waiting, not of asking for something else.
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
    program = submit.sbatch()
    if program is None:
        yield (
            "there is no sbatch on PATH; start this on a login node, or use --profile "
            "profiles/local"
        )
        return
    limit = _limit(site)
    if isinstance(limit, str):
        yield limit
        return
    if site.minutes and limit and site.minutes > limit:
        where = f"partition {site.partition}" if site.partition else "the default partition"
        yield (
            f"runtime is {site.minutes} minutes in profiles/slurm/profile.yaml, and {where} allows "
            f"{limit:.0f}; runs longer than a job go on in the next"
        )
        return
    for what, asked in requests.items():
        status, said = slurm.ask(program, "--test-only", *asked, "--wrap=true")
        lines = [re.sub(r"^(sbatch: )?(error: )?", "", line) for line in said.splitlines()]
        if status == 0 and not any("allocation failure" in line for line in lines):
            continue
        reason = lines[-1].removeprefix("allocation failure: ") if lines else f"status {status}"
        if any(word in reason for word in WAITING) and "configuration" not in reason:
            continue
        yield (
            f"{what} cannot run on this cluster ({reason}): sbatch {' '.join(asked)}; "
            "profiles/slurm/profile.yaml says what is asked for"
        )


def _limit(site: Site) -> float | str:
    """Return the longest job of the site's partition in minutes (0: no limit), or what is wrong."""
    status, said = slurm.ask("scontrol", "show", "partition", "--oneliner")
    if status:
        return f"SLURM does not answer: {said}"
    partitions = {p["PartitionName"]: p for p in map(slurm.fields, said.splitlines()) if p}
    if site.partition:
        chosen = [name for name in site.partition.split(",") if name in partitions]
        if not chosen:
            return (
                f"there is no partition {site.partition!r}; slurm_partition in "
                f"profiles/slurm/profile.yaml must be one of {', '.join(sorted(partitions))}"
            )
    else:
        chosen = [name for name, fields in partitions.items() if fields.get("Default") == "YES"]
        if not chosen:
            return (
                "this cluster has no default partition; set slurm_partition in "
                f"profiles/slurm/profile.yaml to one of {', '.join(sorted(partitions))}"
            )
    limits = [minutes(partitions[name].get("MaxTime", "")) for name in chosen]
    return 0 if 0 in limits else max(limits)


def minutes(text: str) -> float:
    """Return a time as SLURM writes it, ``days-hours:minutes:seconds``, in minutes; 0: no limit."""
    found = re.fullmatch(r"(?:(\d+)-)?(\d+):(\d+):(\d+)", text)
    if found is None:
        return 0
    days, hours, mins, secs = (int(part or 0) for part in found.groups())
    return days * 1440 + hours * 60 + mins + secs / 60
