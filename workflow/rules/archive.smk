# The whole study in one file that anybody can check. On the host and without an image: it asks git for
# the files that are tracked. Not among what `all` makes.


localrules:
    archive,


rule archive:
    input:
        **rules.report.input,
        report=rules.report.output,
    output:
        STUDY.archive(),
    log:
        STUDY.root / "logs" / "archive.log",
    params:
        config=files.digest(STUDY.config),
        source=lambda wildcards: source_state(),
        code=stage_code("lockstep.archive.build"),
    message:
        "Archive study {STUDY.name}"
    shell:
        'python -m lockstep archive --study "$LOCKSTEP_STUDY" 2> {log:q}'
