# Raw files -> shards. A dataset's identity is part of its path, so that a changed source makes
# another dataset; its small manifest is what the later stages depend on.


localrules:
    datasets,
    download,


rule datasets:
    input:
        [STUDY.dataset_manifest(name) for name in dataset_names()],
    message:
        "The datasets are there"


# On the node where Snakemake runs: compute nodes often have no way out.
rule download:
    output:
        directory(STUDY.data / "raw" / "{source}"),
    log:
        STUDY.root / "logs" / "download" / "{source}.log",
    wildcard_constraints:
        source="[a-z0-9_]+",
    params:
        name=lambda wildcards: next(
            name
            for name in dataset_names()
            if STUDY.dataset(name)["source"] == wildcards.source
            and STUDY.dataset(name)["raw"] is None
        ),
    message:
        "Download {wildcards.source}"
    shell:
        'python -m lockstep download --study "$LOCKSTEP_STUDY" --dataset {params.name} 2> {log:q}'


rule preprocess:
    input:
        **image_files("base"),
        raw=raw_files,
    output:
        STUDY.data / "datasets" / "{folder}" / "manifest.json",
    log:
        STUDY.root / "logs" / "preprocess" / "{folder}.log",
    # A process each: as many as the study has threads in a job, all cores on this machine.
    threads: preprocess_threads()
    params:
        name=lambda wildcards: DATASETS[wildcards.folder],
    message:
        "Preprocess {params.name}"
    shell:
        'python -m lockstep preprocess --study "$LOCKSTEP_STUDY" --dataset {params.name}'
        " --workers {threads} 2> {log:q}"
