# Is it the same model? Each variant climbs the ladder in its own image; a third step compares.
# `passed.json` exists only if all is equal, and the runs of a workload depend on it.


localrules:
    parity,


rule parity:
    input:
        [STUDY.passed(workload) for workload in STUDY.config["workloads"]],
    message:
        "Parity is proven"


rule weights:
    input:
        **image_files("base"),
    output:
        STUDY.weights("{workload}", "{seed}"),
    log:
        STUDY.root / "logs" / "weights" / "{workload}" / "seed-{seed}.log",
    params:
        model=lambda wildcards: STUDY.workload(wildcards.workload)["model"],
        start=lambda wildcards: STUDY.start(wildcards.workload),
        code=lambda wildcards: stage_code(
            "lockstep.workloads.weights",
            f"lockstep.workloads.{STUDY.workload(wildcards.workload)['workload']}.spec",
        ),
    message:
        "Make the weights of {wildcards.workload}, seed {wildcards.seed}"
    shell:
        'python -m lockstep weights --study "$LOCKSTEP_STUDY"'
        " --workload {wildcards.workload} --seed {wildcards.seed} 2> {log:q}"


rule trace:
    input:
        unpack(
            lambda wildcards: image_files(
                STUDY.variant(wildcards.variant)["framework"]
            )
        ),
        dataset=manifest_of,
        weights=lambda wildcards: STUDY.weights(
            wildcards.workload, STUDY.config["seeds"][0]
        ),
    output:
        STUDY.trace("{workload}", "{variant}"),
    log:
        STUDY.root / "logs" / "trace" / "{workload}" / "{variant}.log",
    threads: STUDY.config["threads"]
    resources:
        gres=lambda wildcards: request.one_gpu(TRACING_SITE)["gres"],
        slurm_extra=lambda wildcards: request.one_gpu(TRACING_SITE)["slurm_extra"],
    params:
        determined_by=lambda wildcards: STUDY.trace_parameters(
            wildcards.workload, wildcards.variant
        ),
    message:
        "Trace {wildcards.workload} as {wildcards.variant} for parity"
    shell:
        'python -m lockstep trace --study "$LOCKSTEP_STUDY"'
        " --workload {wildcards.workload} --variant {wildcards.variant} 2> {log:q}"


rule compare_traces:
    input:
        **image_files(STUDY.parity_image),
        traces=lambda wildcards: [
            STUDY.trace(wildcards.workload, variant) for variant in STUDY.traces()
        ],
    output:
        STUDY.passed("{workload}"),
    log:
        STUDY.root / "logs" / "parity" / "{workload}.log",
    # The same traces have the same verdict; on a cluster other rules are tried again.
    retries: 0
    # Where parity fails, PyTorch's model is called to find out why.
    threads: STUDY.config["threads"]
    params:
        code=stage_code("lockstep.parity.compare"),
    message:
        "Compare the traces of {wildcards.workload}"
    # The verdict itself is no output: Snakemake would delete it where parity fails.
    shell:
        'python -m lockstep parity --study "$LOCKSTEP_STUDY" --workload {wildcards.workload} 2> {log:q}'
