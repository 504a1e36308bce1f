# What the rules share: the study, and the functions that say what a job reads.

import atexit
import os
import signal
import sys
from pathlib import Path

workflow_folder = os.path.join(workflow.basedir, "workflow")
sys.path.insert(0, workflow_folder)

from lockstep import files, jobs, outcome
from lockstep.cluster import (
    client,
    examine,
    lease,
    preflight,
    profile,
    request,
    submit,
    watch,
)
from lockstep.datasets import sources
from lockstep.errors import UserError
from lockstep.study import Study, feasible, packages, plain
from lockstep.study import config as study_config
from lockstep.study.identity import stage_code

STARTED = jobs.now()


def leave(status):
    """End this process as it is, which nothing of Snakemake's can then change."""
    lease.release()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def refuse(why):
    """End with one line: Snakemake would make a traceback and status 1 of a person's mistake."""
    print(f"lockstep: error: {why}", file=sys.stderr, flush=True)
    leave(2)


def site(rule):
    """What a person set for a rule's jobs: for those of all rules, and for its own."""
    settings = workflow.resource_settings
    sources = settings.default_resources, settings.overwrite_resources.get(rule)
    given = [entry for source in sources for entry in getattr(source, "args", [])]
    return profile.site(profile.named(given))


# What the rules' messages say better, and what is meant for other workflows.
UNTOLD = (
    "Select jobs to execute",
    "Execute ",
    "Singularity containers: ignored",
    "Trying to restart job",
)


def give_up(number):
    """Have Snakemake not try a job again."""
    for job in workflow.dag.jobs:
        if workflow.dag.jobid(job) == number:
            job.attempt = job.restart_times + 1


OUTCOME = outcome.Outcome(
    UNTOLD, stop=lambda: workflow.scheduler.exit_gracefully(), give_up=give_up
)
logger.addFilter(OUTCOME)

try:
    for path in workflow.overwrite_configfiles or ["config.yaml"]:
        plain.read(Path(path))  # Snakemake lets a key that is given twice pass
except UserError as error:
    refuse(error)

# With --configfile the default study must not shine through: Snakemake would merge the two.
if not workflow.overwrite_configfiles:

    configfile: "config.yaml"


try:
    STUDY = Study(study_config.complete(config))
    feasible.check(STUDY, local=False)
    SITE, TRACING_SITE = site("train"), site("trace")
except UserError as error:
    refuse(error)

# In every rule and in every job `python -m lockstep` is this Python and this package, and this
# study's complete config is where `begin` writes it.
os.environ.update(
    PATH=os.pathsep.join([os.path.dirname(sys.executable), *os.get_exec_path()]),
    PYTHONPATH=workflow_folder,
    LOCKSTEP_STUDY=str(STUDY.path),
)

# Where the software of every rule is declared. Stages enter their images by themselves, each the
# one of its framework; Snakemake must not do it for them with one image for all.
if workflow.deployment_settings.deployment_method:
    refuse(
        "--software-deployment-method is not for this workflow: set images.enabled in the config"
    )


container: "containers/base.def"


def begin():
    """Before the first job: make the study ours, and write down what the stages read of it.

    Its config is neither input nor parameter of a rule: what studies share would be made anew for
    each. Stages are rerun for the part of it that concerns them, which is among their parameters.
    """
    try:
        lease.take(STUDY.root)
        if workflow.executor_plugin.name == "slurm":
            prepare_submissions()
        elif workflow.executor_plugin.name == "local":
            feasible.check_machine(STUDY)
            if sys.stderr.isatty():
                os.environ.update(LOCKSTEP_TERMINAL=os.ttyname(sys.stderr.fileno()))
        ask_for_repetition()
        STUDY.write()
    except UserError as error:
        refuse(error)
    except OSError as error:  # a full disk, a folder that is somebody else's
        refuse(f"{error.filename or STUDY.root}: {error.strerror}")


def ask_for_repetition():
    """Mark the runs that `-R train` is for: what a kill left of them stays to be trained again."""
    settings = workflow.dag_settings  # not there yet while this file is read
    if settings.forceall or "train" in settings.forcerun:
        STUDY.repeat(["train"], mark=STARTED)


def prepare_submissions():
    """See to it that what is submitted can run, and that jobs which still live are adopted."""
    scales = sorted({block.scale for block in STUDY.blocks.values()})
    alone = not STUDY.config["blocks"]["share_nodes"]
    threads = STUDY.config["threads"]
    missing = packages.lacking(STUDY)
    if missing:
        refuse(f"this Python lacks {', '.join(missing)}; {packages.REMEDY}")
    command = workflow.executor_settings.status_command
    for finding in examine.checks(SITE, command, scales, threads=threads, alone=alone):
        if finding.fails:
            refuse(f"{finding.found}; {finding.remedy}")
    submitted = sorted(
        {job.rule.name for job in workflow.dag.jobs if not job.is_local} - {"train"}
    )
    try:
        sites = {rule: site(rule) for rule in submitted}
    except UserError as error:
        refuse(error)
    for problem in preflight.problems_of_rules(sites):
        refuse(problem)
    # Once a study: it takes a job. Later starts would wait for a node for nothing.
    if not submit.folder(STUDY).exists():
        finding = examine.node(SITE, images=bool(STUDY.images))
        if finding.fails:
            refuse(f"{finding.subject} {finding.found}; {finding.remedy}")
    os.environ.update(submit.environment(STUDY))
    client.keep_config(submit.folder(STUDY))
    watch.begin(workflow.scheduler._executor)
    submit.begin(STUDY)
    # Planned stops of a run are no failures, and each run of a block has its own (`outcome`).
    OUTCOME.retries = workflow.execution_settings.retries
    workflow.get_rule("train").restart_times = outcome.MANY


def can_report():
    """Whether a stage was to run that a report tells of, and there is what makes one."""
    reported = {"compare_traces", "train", "serve", "report"}
    base = STUDY.images.get("base")
    return reported & {job.rule.name for job in workflow.dag.jobs} and (
        base is None or base.manifest.is_file()
    )


def tell_verdicts():
    """Print the verdicts and where the report is; a stage that was asked for by name has none."""
    if any(job.rule.name == "report" for job in workflow.dag.jobs):
        shell('python -m lockstep tell --study "$LOCKSTEP_STUDY"')


def end():
    """Say the last of all, after Snakemake."""
    if (
        OUTCOME.nothing_to_do
        and not workflow.dryrun
        and STUDY.complete_report().is_file()
    ):
        tell_verdicts()
    OUTCOME.tell(leave)


if not workflow.remote_exec:
    signal.signal(signal.SIGINT, OUTCOME.interrupt)
    atexit.register(end)


# Images

IMAGES = {image.folder.name: name for name, image in STUDY.images.items()}


def image_files(*names):
    """What a job in these images reads of them; nothing in a study without containers."""
    if not STUDY.images:
        return {}
    images = [STUDY.images[name] for name in names]
    return {
        "image": [image.manifest for image in images],
        "sif": [ancient(image.sif) for image in images],
    }


def parent_image(wildcards):
    """The framework images start from the base image."""
    name = IMAGES[wildcards.folder]
    return [] if name == "base" else [ancient(STUDY.images["base"].manifest)]


# Datasets


def dataset_names():
    """The datasets that a workload of this study uses."""
    return sorted(
        {STUDY.workload(name)["dataset"] for name in STUDY.config["workloads"]}
    )


def folder_of(name):
    return os.path.basename(STUDY.dataset_folder(name))


DATASETS = {folder_of(name): name for name in dataset_names()}


def raw_files(wildcards):
    """A source's raw folder, unless its data are embedded."""
    name = DATASETS[wildcards.folder]
    source = STUDY.config["datasets"][name]["source"]
    return [ancient(STUDY.raw_folder(name))] if sources.downloads(source) else []


def preprocess_threads():
    """A job must not count the cores: it may see more than it was given, and memory for fewer."""
    cores = None if workflow.remote_exec else workflow.resource_settings.cores
    return max(STUDY.config["threads"], cores or 1)


# Parity


def manifest_of(wildcards):
    return STUDY.dataset_manifest(STUDY.workload(wildcards.workload)["dataset"])


# Runs


def asked(name):
    """One of the resources that a block is submitted with."""
    alone = not STUDY.config["blocks"]["share_nodes"]
    return lambda wildcards: request.resources(
        SITE, STUDY.block(wildcards.block).scale, alone=alone
    )[name]


def block_inputs(wildcards):
    """What the runs of a block need: parity proven, the dataset, the weights."""
    runs = STUDY.block(wildcards.block).runs
    run = runs[0]
    frameworks = sorted({STUDY.variant(run.variant)["framework"] for run in runs})
    return {
        **image_files(*frameworks),
        # Not ancient(), although a run does not depend on what it holds: Snakemake does not look
        # for changes in jobs behind an input that is about to be made, so that a changed recipe
        # would be proven now and trained the next time. A finished run is skipped by its identity.
        "parity": STUDY.passed(run.workload),
        "dataset": STUDY.dataset_manifest(STUDY.workload(run.workload)["dataset"]),
        "weights": STUDY.weights(run.workload, run.seed),
    }


def block_parameters(wildcards):
    """What else decides the runs of a block."""
    ask_for_repetition()
    return STUDY.block_parameters(wildcards.block)


# Deploy


def deployed_blocks(wildcards):
    """The blocks of the runs whose final states are deployed."""
    wanted = set(STUDY.deployed_runs(wildcards.workload))
    blocks = [b for b, block in STUDY.blocks.items() if wanted & {*block.runs}]
    return [STUDY.manifest(block) for block in blocks]


# Archive


def source_state():
    """What the archive's source is: asked for only where an archive is to be made."""
    from lockstep.archive import source

    return source.state()
