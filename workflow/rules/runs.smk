# Blocks: the scheduled unit. A run's folder is no output, so that a failed or retried block keeps
# what its runs have; the outputs are a manifest and the final states.


localrules:
    runs,


rule runs:
    input:
        [STUDY.manifest(block) for block in STUDY.blocks],
    message:
        "The runs have their records"


rule train:
    input:
        unpack(block_inputs),
    output:
        manifest=STUDY.manifest("{block}"),
        states=directory(STUDY.states("{block}")),
    log:
        STUDY.root / "logs" / "train" / "{block}.log",
    threads: STUDY.config["threads"]
    resources:
        # Timed runs never overlap: the local profile has 100 of these, every other job takes one.
        machine=100,
        # What SLURM is asked for; on one machine nobody reads it.
        nodes=asked("nodes"),
        tasks=asked("tasks"),
        tasks_per_gpu=asked("tasks_per_gpu"),
        mpi=asked("mpi"),
        gres=asked("gres"),
        slurm_extra=asked("slurm_extra"),
        gpus_per_node=asked("gpus_per_node"),
    params:
        determined_by=block_parameters,
    message:
        "Train {wildcards.block}"
    shell:
        'python -m lockstep train --study "$LOCKSTEP_STUDY" --block {wildcards.block}'
        " --gpus-per-node {resources.gpus_per_node} 2> {log:q}"
