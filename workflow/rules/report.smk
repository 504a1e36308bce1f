# From the records to a page. Nothing else is read.


rule report:
    input:
        **image_files("base"),
        blocks=[STUDY.manifest(block) for block in STUDY.blocks],
        parity=[STUDY.passed(workload) for workload in STUDY.config["workloads"]],
        study=STUDY.path,
    output:
        STUDY.report(),
    log:
        STUDY.root / "logs" / "report.log",
    params:
        code=stage_code("lockstep.report.build"),
    shell:
        "python -m lockstep report --study {input.study} 2> {log}"
