# After training: routes from a final state to answers, held to training's own evaluation and timed.
# Only where the config has `deploy`. What it makes lies beside the record, which alone is an output:
# verifying an archive hashes artefacts and runs none.


localrules:
    deploy,


rule deploy:
    input:
        [STUDY.deployment(workload) for workload in STUDY.deployed],
    message:
        (
            "What comes after training is compared"
            if STUDY.deployed
            else "This study deploys nothing; deploy: {{}} in its config has it do so"
        )


rule serve:
    input:
        **image_files(*STUDY.deployed_variants()),
        runs=deployed_blocks,
    output:
        STUDY.deployment("{workload}"),
    log:
        STUDY.root / "logs" / "deploy" / "{workload}.log",
    threads: STUDY.config["threads"]
    resources:
        # Timed as runs are, which nothing may overlap on one machine.
        machine=100,
    params:
        determined_by=lambda wildcards: STUDY.deploy_parameters(wildcards.workload),
    message:
        "Deploy {wildcards.workload}"
    shell:
        'python -m lockstep deploy --study "$LOCKSTEP_STUDY"'
        " --workload {wildcards.workload} 2> {log:q}"
