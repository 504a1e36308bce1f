# The map of the workflow. A study's config goes in; images, datasets, a parity proof, runs and a
# report come out, in this order. The stages are in workflow/rules, what they do in
# workflow/lockstep; README.md says how to start it.

import os
import sys
import time

workflow_folder = os.path.join(workflow.basedir, "workflow")
sys.path.insert(0, workflow_folder)

from lockstep.errors import UserError
from lockstep.study import Study, stage_code, trace_code, trace_key
from lockstep.study import config as study_config

# With --configfile the default study must not shine through: Snakemake would merge the two.
if not workflow.overwrite_configfiles:

    configfile: "config.yaml"


try:
    STUDY = Study(study_config.complete(config))
    study_config.check_raw_folders(STUDY)
    STUDY.images  # a mistake in their part of the config shows here
except UserError as error:
    print(f"lockstep: error: {error}", file=sys.stderr)
    # Snakemake turns an exception into a traceback and status 1; this is a person's mistake.
    sys.stderr.flush()
    os._exit(2)

# `python -m lockstep` is this Python and this package, in every rule and in every job.
os.environ["PATH"] = os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"]
os.environ["PYTHONPATH"] = workflow_folder


include: "workflow/rules/study.smk"
include: "workflow/rules/images.smk"
include: "workflow/rules/datasets.smk"
include: "workflow/rules/parity.smk"
include: "workflow/rules/runs.smk"
include: "workflow/rules/report.smk"


rule all:
    default_target: True
    input:
        rules.report.output,


onstart:
    forced = workflow.dag_settings.forcerun
    if workflow.dag_settings.forceall or "train" in forced:
        STUDY.repeat(["train"], mark=time.strftime("%Y-%m-%dT%H:%M:%S"))


onsuccess:
    shell(f"python -m lockstep tell --study {STUDY.path}")


onerror:
    # Whatever ran is worth seeing, above all why something did not.
    shell(f"python -m lockstep report --study {STUDY.path} --partial || true")
