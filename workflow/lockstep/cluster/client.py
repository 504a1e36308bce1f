"""SLURM's programs as Snakemake's plugin calls them: they do not fail while SLURM is silent.

    python -m lockstep.cluster.client PROGRAM ARGUMENT…

The plugin forgets all jobs whose state five questions within seconds do not tell, and then waits
for good; and it cannot do without programs that some sites do not have. So the workflow puts
`workflow/slurm` first on the PATH of its own calls (`lockstep.cluster.submit.environment`), and
each program there comes through here. No news are an empty answer, after which it asks again.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from lockstep import files
from lockstep.cluster import notices, slurm, submit
from lockstep.errors import UserError

PATIENCE = 40.0  # seconds; the plugin takes a minute for no answer
CONFIG = "config"  # file beside the notes: what `scontrol show config` said at the start
ENDS = "ends"  # file beside the notes: how jobs have ended, which SLURM forgets
FAILED = ("NODE_FAIL", "PREEMPTED", "REVOKED")
"""States in which SLURM starts a job no more, while the plugin would wait for that."""


def main(name: str, arguments: Sequence[str]) -> int:
    """Do what a program of SLURM does; returns its exit status."""
    if name == "sbatch":
        return submit.main(arguments)
    notes = Path(os.environ[notices.FOLDER])
    if name == "squeue":
        run = submit.option(arguments, "--name")
        for job, state in states(notes, run, patience=PATIENCE).items():
            print(f"{job}|{'FAILED' if state in FAILED else state}")
        return 0
    if name == "scontrol" and list(arguments) == ["show", "config"] and (notes / CONFIG).is_file():
        # The plugin asks before each poll, and chooses another way to poll if it gets no answer.
        sys.stdout.write((notes / CONFIG).read_text())
        return 0
    if name == "sacct" and submit.option(arguments, "--name"):  # a poll
        status, said = slurm.insist(name, *arguments, patience=PATIENCE)
    else:
        status, said = slurm.ask(name, *arguments)
    if status == 0 and said:
        print(said)
    return 0


def keep_config(notes: Path) -> None:
    """Keep what does not change while a workflow runs, and forget what earlier ones have kept."""
    (notes / ENDS).unlink(missing_ok=True)
    (notes / notices.SILENT).unlink(missing_ok=True)
    status, said = slurm.ask("scontrol", "show", "config")
    if status == 0:
        files.write_bytes(notes / CONFIG, said.encode() + b"\n")


def states(notes: Path, run: str, *, patience: float) -> dict[str, str]:
    """Return the states of a workflow's jobs, also of those that SLURM has forgotten.

    A job that it forgot before it was seen to end counts as failed: a controller that crashed
    forgets what was submitted in its last seconds.

    Args:
        run: the name that the workflow gives to its jobs.
        patience: seconds until no answer is none.
    """
    # Before the question: what is submitted meanwhile is not in the answer.
    noted = {
        note["job"]: note
        for _, note in submit.noted(notes)
        if note.get("job") and note.get("job-name") == run
    }
    # Of all partitions: one that is closed to this person meanwhile would hide their jobs.
    asked = ("squeue", "--noheader", "--states=all", f"--name={run}", "--format=%i|%T", "--all")
    status, said = slurm.insist(*asked, patience=patience)
    if status:
        return {}
    found = dict(line.split("|", 1) for line in said.splitlines() if "|" in line)
    ends = files.read_json(notes / ENDS) if (notes / ENDS).is_file() else {}
    known = dict(ends)
    for job, note in noted.items():
        state = found.get(job)
        if state is not None:
            if state in submit.ENDED - {"COMPLETING"}:
                known[job] = state
        elif job not in known and not submit.option(note["request"], "--clusters"):
            notices.say(f"job {job} ({note['target']}) is unknown to SLURM; it counts as failed")
            known[job] = "FAILED"
    if known != ends:
        files.write_json(notes / ENDS, known)
    return {**{job: known[job] for job in noted if job in known}, **found}


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1], sys.argv[2:]))
    except UserError as error:
        notices.say(str(error))
        print(f"lockstep: error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
