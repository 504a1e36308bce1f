"""`python -m lockstep STAGE …`: what every rule calls, and what a person may call.

Each command imports its stage only when it runs: a login node has neither NumPy nor a framework.
"""

import argparse
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from lockstep import __version__, files, front_door
from lockstep.errors import UserError
from lockstep.port import command as port_command
from lockstep.study import Study

if TYPE_CHECKING:
    from lockstep.parity.route import Route

HELP = """\
Trains the same model in PyTorch and in JAX, proves that it is the same model, and measures the
difference. A study is described by a config.yaml and run by Snakemake:

  make demo                               a small study on this machine, in minutes
  python -m lockstep run                  check config.yaml, then run it on this machine
  python -m lockstep run --profile slurm  the same, as SLURM jobs
  snakemake --profile slurm               what `run` starts when its checks have passed

The commands below are its stages; `python -m lockstep COMMAND --help` says more of one.
"""


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    parser = _parser()
    line = sys.argv[1:] if arguments is None else arguments
    options, unknown = parser.parse_known_args(line)
    if unknown and options.command is not run:  # which are for Snakemake
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    options.line = line[1:]
    if options.command is None:
        parser.print_help()
        return 0
    try:
        if getattr(options, "study", None):
            from lockstep import inside

            study = Study.load(options.study)
            image = inside.image_of(study, options.command.__name__, vars(options))
            if image:
                return inside.run_inside(study, image, options.command.__name__, line)
            name = _job(options)
            if name:
                from lockstep import jobs

                command = options.command
                return jobs.recorded(
                    command, options, stage=command.__name__, name=name, root=study.root
                )
        status = options.command(options)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # whoever read what is printed, as `head` does, has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except UserError as error:
        print(f"lockstep: error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        why = files.explained(error, "a file")
        if why is None:
            raise
        print(f"lockstep: error: {why}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:  # where nothing had to be saved, as while it waited
        return 128 + signal.SIGINT
    except ModuleNotFoundError as error:
        if not error.name or error.name.startswith("lockstep"):
            raise
        from lockstep.study import packages

        package = error.name.partition(".")[0]
        remedy = packages.DOWNLOADS_REMEDY if package == packages.DOWNLOADS else packages.REMEDY
        print(f"lockstep: error: {package} is not installed here; {remedy}", file=sys.stderr)
        return 2


def _job(options: argparse.Namespace) -> str | None:
    """Return what a stage's job is called in its log's folder; None for what is no stage."""
    given, stage = vars(options), options.command.__name__
    if stage in ("image", "preprocess", "parity", "train", "deploy", "report"):
        names = ("name", "dataset", "workload", "block")
        return next((given[key] for key in names if key in given), "study")
    if stage in ("weights", "trace"):
        return f"{options.workload}-{given.get('seed', given.get('variant'))}"
    return None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lockstep",
        description=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"lockstep {__version__}")
    parser.set_defaults(command=None)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    def add(name: str, command, summary: str, *, study: bool = True) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=summary, description=summary)
        sub.set_defaults(command=command)
        if study:
            sub.add_argument("--study", type=Path, required=True, help="its folder, results/STUDY")
        return sub

    front_door.add_arguments(add("run", run, "check a study, then start Snakemake", study=False))
    sub = add("check", check, "check a study, and say how large it is", study=False)
    sub.add_argument(
        "config", type=Path, nargs="*", help="config.yaml if none is named; later ones change it"
    )
    sub.add_argument("--profile", default=front_door.LOCAL, help="where it is to run")
    add("image", image, "build a container image, or take it from the cache").add_argument(
        "--name", required=True, choices=["base", "torch", "jax"]
    )
    sub = add("doctor", doctor, "say whether SLURM and containers will work here", study=False)
    sub.add_argument(
        "config", type=Path, nargs="*", help="whose scales and images count; later ones change it"
    )
    for name, command, summary in (
        ("download", download, "download a dataset's raw files"),
        ("preprocess", preprocess, "bring a dataset into shards"),
    ):
        sub = add(name, command, summary)
        sub.add_argument("--dataset", required=True)
    sub.add_argument("--workers", type=_count, help="processes; as many as there are cores")
    sub.add_argument(
        "--part", type=_part, default=(1, 1), metavar="I/N", help="make one N-th of the shards"
    )
    sub = add("weights", weights, "make initial weights")
    sub.add_argument("--workload", required=True)
    sub.add_argument("--seed", type=int, required=True)
    sub = add("trace", trace, "climb the parity ladder with one variant")
    sub.add_argument("--workload", required=True)
    sub.add_argument("--variant", required=True)
    sub = add("parity", parity, "compare the traces of a workload")
    sub.add_argument("--workload", required=True)
    sub = add("cause", cause, "look for why the variants of a workload are not the same model")
    sub.add_argument("--workload", required=True)
    sub = add("train", train, "train the runs of a block")
    sub.add_argument("--block", required=True)
    sub.add_argument("--resume-from", type=Path, help="checkpoint to go on from")
    sub.add_argument("--time-budget", type=float, help="seconds after which to stop and save")
    sub.add_argument(
        "--gpus-per-node", type=int, default=0, help="stop unless each node shows so many GPUs"
    )
    sub = add("deploy", deploy, "compare inference, export and compression after training")
    sub.add_argument("--workload", required=True)
    sub = add("report", report, "make the report from the records that are there")
    sub.add_argument("--partial", action="store_true", help="runs may be missing")
    sub = add("archive", archive, "put the study into one file that can be handed over")
    sub.add_argument("--partial", action="store_true", help="files may be missing; it says which")
    sub.add_argument("--output", type=Path, help="instead of results/STUDY.crate.zip")
    published = "of the file, as it was published"
    sub = add("verify", verify, "check an archive and compute its numbers again", study=False)
    sub.add_argument("archive", type=Path, metavar="FILE", help="or the folder it was unzipped to")
    sub.add_argument("--sha256", type=_sha256, help=published)
    sub.add_argument("--figures", action="store_true", help="also draw the figures again")
    sub = add("reproduce", reproduce, "run an archived study again and compare", study=False)
    sub.add_argument("archive", type=Path, metavar="FILE")
    sub.add_argument("--sha256", type=_sha256, help=published)
    source = "a checkout that you trust, whose code must be that of the archive"
    sub.add_argument("--source", type=Path, metavar="FOLDER", help=source)
    sub.add_argument("--into", type=Path, required=True, help="an empty folder")
    sub.add_argument("--profile", default="profiles/local", help="default: profiles/local")
    only = "WORKLOAD[/VARIANT[/SCALE[/seed-S]]]"
    sub.add_argument("--only", action="append", default=[], metavar=only, help="these runs alone")
    raw = "a dataset's raw files, instead of downloading them"
    sub.add_argument("--raw", action="append", default=[], metavar="NAME=FOLDER", help=raw)
    start = "the weights that a workload starts from, where it does not draw them all"
    sub.add_argument("--start", action="append", default=[], metavar="NAME=FILE", help=start)
    sub.add_argument("--dry-run", action="store_true", help="say what would be run, and end")
    sub.add_argument("--yes", action="store_true", help="run the archive's code without asking")
    add("tell", tell, "print the verdicts of a finished report")
    sub = add("compare", compare, "compare two finished studies", study=False)
    sub.add_argument("a", type=Path, metavar="A", help="results/STUDY, or an archive of a study")
    sub.add_argument("b", type=Path, metavar="B", help="the study that is compared with it")
    sub.add_argument("--json", type=Path, help="also write everything to this file")
    port_command.add_arguments(
        add("port", port, "compare a PyTorch model with its port to JAX", study=False)
    )
    return parser


def run(options: argparse.Namespace) -> int:
    return front_door.run(options.line)


def check(options: argparse.Namespace) -> int:
    front_door.check(options.config or [Path("config.yaml")], options.profile)
    return 0


def image(options: argparse.Namespace) -> int:
    from lockstep import inside

    inside.make(Study.load(options.study), options.name)
    return 0


def doctor(options: argparse.Namespace) -> int:
    from lockstep.cluster import doctor as examination

    return examination.main(*options.config)


def download(options: argparse.Namespace) -> int:
    from lockstep.datasets import sources

    study = Study.load(options.study)
    entry = study.dataset(options.dataset)
    if entry["raw"] is not None:
        raise UserError(
            f"dataset {options.dataset} has its raw files in {entry['raw']}, where a person put "
            "them; nothing is downloaded over them"
        )
    if not sources.downloads(entry["source"]):
        raise UserError(
            f"dataset {options.dataset} is of source {entry['source']}, which has no download"
        )
    sources.load(entry["source"]).fetch(study.raw_folder(options.dataset))
    return 0


def preprocess(options: argparse.Namespace) -> int:
    from lockstep.datasets import prepare

    study, name = Study.load(options.study), options.dataset
    prepare.prepare(
        name,
        study.dataset(name),
        study.dataset_identity(name),
        study.raw_folder(name),
        study.dataset_folder(name),
        workers=options.workers,
        part=options.part,
    )
    return 0


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


def _sha256(text: str) -> str:
    digits = text.strip().lower()
    if len(digits) != 64 or set(digits) - set("0123456789abcdef"):
        raise argparse.ArgumentTypeError(f"{text!r} is no sha256, which has 64 hexadecimal digits")
    return digits


def _part(text: str) -> tuple[int, int]:
    """Read ``2/4``: the second of four parts."""
    number, _, count = text.partition("/")
    part = (_count(number), _count(count))
    if part[0] > part[1]:
        raise argparse.ArgumentTypeError(f"{text!r} is none of {part[1]} parts")
    return part


def weights(options: argparse.Namespace) -> int:
    from lockstep import workloads
    from lockstep.workloads import weights as states

    study = Study.load(options.study)
    recipe = study.workload(options.workload)
    workload = workloads.of(recipe)
    state = states.initial(workload, recipe["model"], options.seed)
    if recipe["start"]:
        state = states.started(state, Path(recipe["start"]), workload, recipe["model"])
    states.save(study.weights(options.workload, options.seed), state)
    return 0


def trace(options: argparse.Namespace) -> int:
    from lockstep.cluster import launch
    from lockstep.parity import trace as ladder

    launch.let_threads_sleep()  # before a framework is imported
    study = Study.load(options.study)
    ladder.trace(
        _route(study, options.workload, options.variant),
        **study.climbed,
        threads=study.config["threads"],
        output=study.trace(options.workload, options.variant),
    )
    return 0


def _route(study: Study, workload: str, variant: str) -> "Route":
    from lockstep import machine
    from lockstep.parity.route import Route

    recipe, seed = study.workload(workload), study.config["seeds"][0]
    return Route(
        recipe=recipe,
        variant=study.variant(variant),
        seed=seed,
        manifest=study.dataset_manifest(recipe["dataset"]),
        initial=study.weights(workload, seed),
        caches=study.trace_programs(machine.instruction_set()),
        window_steps=study.config["window_steps"],
    )


def parity(options: argparse.Namespace) -> int:
    from lockstep.parity import cause as causes
    from lockstep.parity import compare

    study, workload = Study.load(options.study), options.workload
    study.workload(workload)  # a name that is none is told as such, not as files that are missing
    traces = {variant: study.trace(workload, variant) for variant in study.traces()}
    study.passed(workload).unlink(missing_ok=True)  # shut whatever happens from here on
    verdict, path = compare.judge(workload, traces), study.verdict(workload)
    searched = causes.to_search(verdict, study.config["variants"])
    files.write_json(path, verdict)
    if verdict["passed"]:
        files.write_json(study.passed(workload), {"verdict": files.sha256_file(path)})
        return 0

    def tell() -> None:
        for line in causes.lines(verdict, study.config["variants"], options.study):
            print(f"lockstep: parity FAILS: {line}", file=sys.stderr, flush=True)

    tell()  # at once: a search takes minutes, or more memory than there is
    if searched:
        named = ["--study", str(options.study), "--workload", workload]
        verdict = causes.search(path, [sys.executable, "-m", "lockstep", "cause", *named])
        files.write_json(path, verdict)
        tell()
    return 1


def cause(options: argparse.Namespace) -> int:
    from lockstep.cluster import launch

    launch.let_threads_sleep()  # before a framework is imported
    from lockstep.parity import cause as causes
    from lockstep.port import traced

    study, workload = Study.load(options.study), options.workload
    study.workload(workload)
    path, variants = study.verdict(workload), study.config["variants"]
    if not path.is_file():
        raise UserError(f"{path}: there is no verdict; run the parity stage first")
    verdict = files.read_json(path)
    for variant in causes.to_search(verdict, variants):
        both = {v: study.trace(workload, v) for v in (variant, verdict["reference"])}
        own = {variants[v]["framework"]: v for v in both}
        found = traced.cause(
            verdict["comparisons"][variant],
            _route(study, workload, own["torch"]),
            *(both[own[framework]] for framework in ("torch", "jax")),
        )
        verdict["comparisons"][variant]["cause"] = found
    files.write_json(path, verdict)
    print("\n".join(causes.lines(verdict, variants, options.study)))
    return 0


def train(options: argparse.Namespace) -> int:
    from lockstep.training.block import run_block

    return run_block(
        Study.load(options.study),
        options.block,
        resume_from=options.resume_from,
        time_budget=options.time_budget,
        gpus=options.gpus_per_node,
    )


def deploy(options: argparse.Namespace) -> int:
    from lockstep.deploy import stage

    study = Study.load(options.study)
    study.workload(options.workload)
    stage.deploy(study, options.workload)
    return 0


def report(options: argparse.Namespace) -> int:
    from lockstep.report import build

    build.build(Study.load(options.study), partial=options.partial)
    return 0


def tell(options: argparse.Namespace) -> int:
    from lockstep.report import build

    print("\n".join(build.terminal_lines(Study.load(options.study))))
    return 0


def archive(options: argparse.Namespace) -> int:
    from lockstep.archive import build

    study = Study.load(options.study)
    _, lines = build.build(study, partial=options.partial, output=options.output)
    print("\n".join(lines))
    return 0


def verify(options: argparse.Namespace) -> int:
    from lockstep.archive import verify as check_of_all

    return check_of_all.main(options.archive, sha256=options.sha256, figures=options.figures)


def reproduce(options: argparse.Namespace) -> int:
    from lockstep.reproduce import repetition

    return repetition.main(
        options.archive,
        folder=options.into,
        profile=options.profile,
        sha256=options.sha256,
        source=options.source,
        only=options.only,
        raw=options.raw,
        start=options.start,
        dry_run=options.dry_run,
        yes=options.yes,
    )


def port(options: argparse.Namespace) -> int:
    if options.workload is None:
        return port_command.main(options)
    study, routes = Study.load(options.pair), []
    for framework in ("torch", "jax"):
        variants = [n for n, v in study.config["variants"].items() if v["framework"] == framework]
        if not variants:
            raise UserError(f"{options.pair}: no variant has framework {framework}; add one")
        routes.append(_route(study, options.workload, variants[0]))

    def names() -> dict[str, object]:
        from lockstep.parity import pair

        return pair.names(*routes)

    return port_command.main(options, names)


def compare(options: argparse.Namespace) -> int:
    from lockstep.archive.verify import study_folder
    from lockstep.report import compare as studies

    with study_folder(options.a) as a, study_folder(options.b) as b:
        comparison = studies.compare(a, b, called=(str(options.a), str(options.b)))
        if options.json:
            files.write_json(options.json, studies.as_json(comparison))
        print("\n".join(studies.lines(comparison)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
