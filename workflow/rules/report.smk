# From the records to a page. Nothing else is read.

REPORT = STUDY.report().parent


rule report:
    input:
        **image_files("base"),
        blocks=[STUDY.manifest(block) for block in STUDY.blocks],
        parity=[STUDY.passed(workload) for workload in STUDY.config["workloads"]],
        deployed=[STUDY.deployment(workload) for workload in STUDY.deployed],
        page=[
            os.path.relpath(os.path.join(workflow_folder, "lockstep", "report", name))
            for name in ("page.html.j2", "page.css")
        ],
        schemas=[
            os.path.relpath(
                os.path.join(workflow_folder, "schemas", f"{name}.schema.json")
            )
            for name in ("summary", "verdict", "deploy")
        ],
    output:
        # Without it Snakemake would take a partial report for its own, and do nothing.
        complete=STUDY.complete_report(),
        page=report(STUDY.report(), caption="../report/page.rst", category="Comparison"),
        numbers=report(
            REPORT / "report.json",
            caption="../report/numbers.rst",
            category="Comparison",
        ),
        tables=report(
            directory(REPORT / "tables"),
            patterns=["{table}.csv"],
            caption="../report/tables.rst",
            category="Tables",
            labels={"table": "{table}"},
        ),
        figures=report(
            directory(REPORT / "figures"),
            patterns=["{figure}.svg"],
            caption="../report/figures.rst",
            category="Figures",
            labels={"figure": "{figure}"},
        ),
    log:
        STUDY.root / "logs" / "report.log",
    params:
        # What an archive says of itself is not in the report.
        config=files.digest({k: v for k, v in STUDY.config.items() if k != "archive"}),
        code=stage_code("lockstep.report.build"),
    message:
        "Make the report of study {STUDY.name}"
    shell:
        'python -m lockstep report --study "$LOCKSTEP_STUDY" 2> {log:q}'
