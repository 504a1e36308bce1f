"""What `python -m lockstep doctor` looks at on a login node of a SLURM cluster."""

import os
import re
import shlex
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from lockstep.cluster import preflight, profile, slurm
from lockstep.cluster.request import Site, place
from lockstep.errors import UserError
from lockstep.images.host import Finding
from lockstep.study.run import Scale

REMEMBERED = 60  # seconds: the workflow asks every 20 s (`watch`) and must still find a job then
LOCAL = "--profile profiles/local"
ALONE = f"{LOCAL} runs on this machine"
RESTARTED = ("OFF", "REQUEUE")  # values of PreemptMode after which runs go on by themselves
PATIENCE = 30  # seconds until a node is free for a look at it


def findings(
    scales: Sequence[Scale], *, threads: int, alone: bool, images: bool
) -> Iterator[Finding]:
    """Yield one finding after the other; a single one where there is no SLURM.

    Args:
        scales: those that a study asks for.
        threads, alone: as the study has them.
        images: whether it runs in containers.
    """
    if slurm.program("sbatch") is None:
        yield Finding(subject="SLURM", found=f"none here; {ALONE}")
        return
    status, said = slurm.ask("scontrol", "ping")
    if status and "DNS SRV lookup failed" in said:  # the last place where a configuration may be
        yield Finding(
            subject="SLURM",
            found=f"installed, but this machine belongs to no cluster; {ALONE}",
        )
        return
    if status == 0:
        yield Finding(subject="SLURM", found=slurm.ask("sinfo", "--version")[1])
        yield _inside_a_job()
    settings = profile.read()
    try:
        profile.check(settings)
        site = profile.site(profile.resources(settings, "train"))
    except UserError as error:
        yield Finding(subject="profile", found=str(error), remedy=f"edit {profile.PATH}")
        return
    command = settings.get("slurm-status-command", "squeue")
    failed = False
    for finding in checks(site, command, scales, threads=threads, alone=alone):
        failed |= finding.fails
        yield finding
    if not failed:
        yield node(site, images=images)


def checks(
    site: Site, command: str, scales: Sequence[Scale], *, threads: int, alone: bool
) -> Iterator[Finding]:
    """Yield what `doctor` and the start of a workflow both look at.

    Args:
        site: what the jobs of `train` are submitted with.
        command: by which Snakemake asks how jobs are.
        scales, threads, alone: as the study has them.
    """
    if slurm.program("sbatch") is None:
        yield Finding(
            subject="SLURM",
            found="there is no sbatch on PATH",
            remedy=f"start this on a login node, or use {LOCAL}",
        )
        return
    status, said = slurm.ask("scontrol", "show", "config")
    if status:
        yield Finding(
            subject="SLURM",
            found=said.splitlines()[0] if said else "scontrol show config fails",
            remedy="the controller does not answer; wait for it, or ask an administrator",
        )
        return
    yield from status_of_jobs(said, command)
    yield preemption(said, slurm.ask("scontrol", "show", "partition", "--oneliner")[1])
    wrong = list(preflight.problems(site, scales, threads=threads, alone=alone))
    for problem in wrong:
        found, _, remedy = problem.rpartition("; ")
        yield Finding(subject="request", found=found, remedy=remedy)
    if not wrong:
        where = site.partition or "the default partition"
        yield Finding(subject="request", found=f"{where} can run {', '.join(map(str, scales))}")


def _inside_a_job() -> Finding:
    number = os.environ.get("SLURM_JOB_ID")
    if number is None:
        return Finding(subject="where this runs", found="on a login node, not inside a job")
    return Finding(
        subject="where this runs",
        found=f"inside job {number}: the workflow would end with it, and inherits its settings",
        remedy="start Snakemake on a login node, in tmux or screen",
        fatal=False,
    )


def status_of_jobs(config: str, command: str) -> Iterator[Finding]:
    """Can Snakemake learn how a job ended?

    Args:
        config: what `scontrol show config` says.
        command: by which the profile has Snakemake ask.
    """
    accounting = re.search(r"^AccountingStorageType\s*=\s*(\S+)", config, re.MULTILINE)
    works = accounting is not None and accounting.group(1) not in (
        "(null)",
        "accounting_storage/none",
    )
    yield _sacct(works=works) if command == "sacct" else _squeue(config)
    yield Finding(
        subject="accounting",
        found="a database" if works else "none; records of jobs come from the controller alone",
    )


def _sacct(*, works: bool) -> Finding:
    return Finding(
        subject="state of ended jobs",
        found="sacct asks the database"
        if works
        else "sacct would ask a database that is not there",
        remedy=None
        if works
        else f"set slurm-status-command to squeue ({profile.where('slurm-status-command')})",
    )


def _squeue(config: str) -> Finding:
    subject = "state of ended jobs"
    age = re.search(r"^MinJobAge\s*=\s*(\d+)", config, re.MULTILINE)
    kept = int(age.group(1)) if age else None
    if kept == 0:
        return Finding(subject=subject, found="squeue shows them for good (MinJobAge 0)")
    return Finding(
        subject=subject,
        found="not known for how long squeue shows them"
        if kept is None
        else f"squeue shows them for {kept} s (MinJobAge)",
        remedy=None
        if kept is not None and kept >= REMEMBERED
        else f"an administrator sets MinJobAge to {REMEMBERED} or more; or, if accounting works, "
        f"set slurm-status-command to sacct ({profile.where('slurm-status-command')})",
    )


def preemption(config: str, partitions: str) -> Finding:
    """Does SLURM start again what it takes a node away from?

    Args:
        config, partitions: what `scontrol show` says of them.
    """
    found = re.search(r"^PreemptMode\s*=\s*(\S+)", config, re.MULTILINE)
    modes = {"the cluster": found.group(1) if found else "OFF"}
    for fields in map(slurm.fields, partitions.splitlines()):
        if "PreemptMode" in fields:
            modes[f"partition {fields.get('PartitionName')}"] = fields["PreemptMode"]
    wrong = {name: mode for name, mode in modes.items() if mode.upper() not in RESTARTED}
    if not wrong:
        return Finding(subject="preemption", found="none, or SLURM requeues what it takes away")
    return Finding(
        subject="preemption",
        found=", ".join(f"{name} has PreemptMode {mode}" for name, mode in wrong.items()),
        remedy="use a partition or qos that is not preempted, or one with PreemptMode REQUEUE: a "
        "job that is cancelled so counts as crashed, and a job that is suspended has no timings",
        fatal=False,
    )


def node(site: Site, *, images: bool) -> Finding:
    """Does a node see this folder, this Python and Apptainer? Asked by a job of one minute."""
    here = Path.cwd()
    python = shlex.quote(sys.executable)
    tests = [f"{python} -c '' 2>/dev/null || echo python"]
    if images:
        tests.append("command -v apptainer >/dev/null || echo apptainer")
    step = ["srun", "--quiet", "--time=1", "--ntasks=1", f"--immediate={PATIENCE}", "--chdir=/"]
    # A file and not the folder: one of that name may be on the node, too.
    with tempfile.NamedTemporaryFile(dir=here, prefix=".lockstep-doctor-") as probe:
        tests.append(f"test -e {shlex.quote(probe.name)} || echo folder")
        look = f"{'; '.join(tests)}; echo on $(uname -n)"
        status, said = slurm.ask(*step, *place(site), "bash", "-c", look)
    found = re.search(r"^on (\S+)$", said, re.MULTILINE)
    if status or found is None:
        return Finding(
            subject="a node",
            found="none was free for a look at it",
            remedy="try again later; jobs wait for nodes in any case",
            fatal=False,
        )
    missing = [line for line in said.splitlines() if line in ("folder", "python", "apptainer")]
    subject = f"node {found.group(1)}"
    if not missing:
        return Finding(subject=subject, found="sees this folder and this Python")
    remedies = {
        "folder": f"clone the repository to a file system that nodes share ({here} is not on one)",
        "python": f"make setup, with a Python that nodes share ({python} is not there)",
        "apptainer": "have Apptainer installed on the nodes, or set images.enabled to false",
    }
    return Finding(
        subject=subject,
        found=f"lacks {' and '.join(missing)}",
        remedy="; ".join(remedies[name] for name in missing),
    )
