# Images hold dependencies. An image's identity is part of its path; its small manifest is what the
# jobs in it depend on. A study without containers has none.

localrules:
    images,
    image,


IMAGES = {image.folder.name: name for name, image in STUDY.images.items()}


def image_files(*names):
    """What a job in these images reads of them; nothing in a study without containers."""
    if not STUDY.images:
        return {}
    images = [STUDY.images[name] for name in names]
    return {
        "image": [image.manifest for image in images],
        "sif": [ancient(image.sif) for image in images],
    }


def parent_image(wildcards):
    """The framework images start from the base image."""
    name = IMAGES[wildcards.folder]
    return [] if name == "base" else [ancient(STUDY.images["base"].manifest)]


rule images:
    input:
        STUDY.path,
        [image.manifest for image in STUDY.images.values()],


rule image:
    input:
        parent=parent_image,
        study=ancient(STUDY.path),
    output:
        manifest=STUDY.data / "images" / "{folder}" / "manifest.json",
        sif=STUDY.data / "images" / "{folder}" / "image.sif",
    log:
        STUDY.root / "logs" / "images" / "{folder}.log",
    params:
        name=lambda wildcards: IMAGES[wildcards.folder],
    shell:
        "python -m lockstep image --study {input.study} --name {params.name} 2> {log}"
