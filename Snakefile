# The map of the workflow. A study's config goes in; images, datasets, a parity proof, runs and a
# report come out, in this order. The stages are in workflow/rules, what they do in
# workflow/lockstep; README.md says how to start it.


include: "workflow/rules/common.smk"
include: "workflow/rules/images.smk"
include: "workflow/rules/datasets.smk"
include: "workflow/rules/parity.smk"
include: "workflow/rules/runs.smk"
include: "workflow/rules/deploy.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/archive.smk"


rule all:
    default_target: True
    input:
        rules.report.output,
    message:
        "Study {STUDY.name} is complete"


onstart:
    begin()


onsuccess:
    OUTCOME.succeeded()
    outcome.tidy(STUDY.root)
    tell_verdicts()


onerror:
    # Whatever ran is worth seeing, above all why something did not.
    if not OUTCOME.stopped and can_report():
        shell(
            'python -m lockstep report --study "$LOCKSTEP_STUDY" --partial'
            ' && python -m lockstep tell --study "$LOCKSTEP_STUDY" || true'
        )
