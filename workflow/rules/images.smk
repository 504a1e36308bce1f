# Images hold dependencies. A study without containers needs none.


localrules:
    images,


rule images:
    input:
        STUDY.path,
