# Images hold dependencies. An image's identity is part of its path; its small manifest is what the
# jobs in it depend on. A study without containers has none.


localrules:
    images,
    image,


rule images:
    input:
        [image.manifest for image in STUDY.images.values()],
    message:
        (
            "The images are there"
            if STUDY.images
            else "This study has no images; images.enabled: true in its config gives it some"
        )


rule image:
    input:
        parent=parent_image,
    output:
        manifest=STUDY.data / "images" / "{folder}" / "manifest.json",
        sif=STUDY.data / "images" / "{folder}" / "image.sif",
    log:
        STUDY.root / "logs" / "images" / "{folder}.log",
    params:
        name=lambda wildcards: IMAGES[wildcards.folder],
    message:
        "Build the {params.name} image, or take it from the cache"
    shell:
        'python -m lockstep image --study "$LOCKSTEP_STUDY" --name {params.name} 2> {log:q}'
