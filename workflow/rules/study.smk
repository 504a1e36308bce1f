# The complete config, as every stage reads it. Stages take it as ancient(): they are rerun for the
# part of the config that concerns them, which is among their parameters, and not for the rest.


localrules:
    study,


rule study:
    output:
        STUDY.path,
    log:
        STUDY.root / "logs" / "study.log",
    params:
        config=STUDY.config,
    message:
        "Complete the config of study {STUDY.name}"
    run:
        STUDY.write()
