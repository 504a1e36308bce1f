"""From a scale and a site to what SLURM is asked for."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from lockstep.cluster import preflight, request, slurm
from lockstep.cluster.request import Site
from lockstep.errors import UserError
from lockstep.machine import visible_gpus
from lockstep.study.run import Scale


def test_a_site_is_what_the_profile_says() -> None:
    site = Site.of({"gpus_as": '"gres=gpu:a100"', "runtime": "90", "slurm_partition": "big"})
    assert site.gpus_as == "gres=gpu:a100"
    assert (site.minutes, site.partition, site.account) == (90, "big", None)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("runtime", "120", 120),
        ("runtime", "2h", 120),
        ("runtime", "'1.5 hours'", 90),
        ("runtime", "90m", 90),
        ("runtime", "1d", 1440),
        ("runtime", "60 * attempt", None),
        ("mem_mb", "7000", 7000),
        ("mem", "16GB", 16000),
        ("mem_mb", "16*1024", 16384),
        ("mem_mb", "2 * 8 * 1024", 16384),
        ("mem", "16GiB", 17180),
        ("mem", "16G", 16000),
        ("mem", "0", 0),
    ],
)
def test_amounts_are_read_as_snakemake_reads_them(name: str, text: str, value: int | None) -> None:
    site = Site.of({name: text})
    assert (site.minutes if name == "runtime" else site.memory) == value
    resources = pytest.importorskip("snakemake.resources")
    if value and name != "mem_mb":
        assert resources.Resource.parse_human_friendly(name, text) == value


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"runtime": "1-00:00:00"}, "runtime is '1-00:00:00' in the profile; it must be minutes"),
        ({"runtim": "60"}, "runtim is no resource that anything reads .* did you mean 'runtime'"),
        ({"partition": "gpu"}, "partition is no resource .* did you mean 'slurm_partition'"),
        (
            {"slurm_extra": "--mail-type=FAIL --time=10"},
            r"slurm_extra is .* but the runtime/time limit is not set there \(--time\)",
        ),
        ({"slurm_extra": "'-p gpu'"}, r"but the partition is not set there \(-p\)"),
        ({"mem": "all"}, "mem_mb is 'all' in the profile; it must be megabytes"),
    ],
)
def test_an_amount_that_snakemake_cannot_read(given: dict[str, str], told: str) -> None:
    with pytest.raises(UserError, match=told):
        Site.of(given)


@pytest.mark.parametrize("way", ["cards", "gres", "gres=", "gres=card:a-b", "gpus-per-node=a b"])
def test_gpus_in_a_way_that_slurm_does_not_know(way: str) -> None:
    with pytest.raises(UserError, match=f"gpus_as is '{way}' in the profile"):
        Site.of({"gpus_as": way})


@pytest.mark.parametrize(
    ("extra", "options"),
    [
        ("\"--exclude='node[01-03]'\"", ["--exclude=node[01-03]"]),
        (
            "'--mail-type=FAIL --licenses=\"two words\"'",
            ["--mail-type=FAIL", "--licenses=two words"],
        ),
        ("--exclude='node[01-03]'", ["--exclude=node[01-03]"]),
    ],
)
def test_quotes_in_further_options_are_kept(extra: str, options: list[str]) -> None:
    line = request.options(Site.of({"slurm_extra": extra}), Scale(1, 1), threads=1, alone=False)
    assert line[-len(options) :] == options


def test_a_quote_that_does_not_end() -> None:
    with pytest.raises(UserError, match="no closing quotation.; each quote in it must end"):
        Site.of({"slurm_extra": '"--exclude=\'node1"'})


@pytest.mark.parametrize("way", ["gpu", "gpu:a100", "gpu:nvidia_a100-sxm4-80gb"])
def test_the_executor_takes_what_it_is_given(way: str) -> None:
    """Snakemake's plugin has ideas of its own of what may be asked for."""
    utils = pytest.importorskip("snakemake_executor_plugin_slurm.utils")
    validation = pytest.importorskip("snakemake_executor_plugin_slurm.validation")
    asked = request.resources(Site.of({"gpus_as": f"gres={way}"}), Scale(1, 2))
    given = {name: value for name, value in asked.items() if value is not None}

    class Resources(dict):
        __getattr__ = dict.__getitem__

    job = SimpleNamespace(resources=Resources(given))
    validation.validate_slurm_extra(job)
    said = utils.set_gres_string(job) + given["slurm_extra"]
    assert said.endswith((f"{way}:2--exclusive", f"{way.removeprefix('gpu:')}:2"))


@pytest.mark.parametrize(
    ("gpus_as", "gres", "extra"),
    [
        ("gres=gpu", "gpu:4", "--exclusive"),
        ("gres=gpu:a100", "gpu:a100:4", "--exclusive"),
        ("gres=gpu:a100-80gb", None, "--exclusive --gpus-per-node=a100-80gb:4"),
        ("gpus-per-node", None, "--exclusive --gpus-per-node=4"),
        ("gpus-per-node=a100", None, "--exclusive --gpus-per-node=a100:4"),
        ("none", None, "--exclusive"),
    ],
)
def test_gpus_are_asked_for_by_node(gpus_as: str, gres: str | None, extra: str) -> None:
    asked = request.resources(Site.of({"gpus_as": gpus_as}), Scale(2, 4))
    assert (asked["gres"], asked["slurm_extra"]) == (gres, extra)
    assert asked["gpus_per_node"] == (0 if gpus_as == "none" else 4)


def test_one_task_a_node_and_steps_from_the_batch_script() -> None:
    for scale, mpi in ((Scale(1, 1), ""), (Scale(1, 8), ""), (Scale(3, 2), "srun")):
        asked = request.resources(Site(), scale, alone=False)
        assert asked["nodes"] == asked["tasks"] == scale.nodes
        assert asked["mpi"] == mpi
        assert asked["slurm_extra"] is None


def test_the_request_beforehand_is_the_request() -> None:
    site = Site(gpus_as="gres=gpu", partition="big", minutes=60, extra="--mail-type=FAIL")
    assert request.options(site, Scale(2, 4), threads=8, alone=True) == [
        *("--nodes=2", "--ntasks=2", "--cpus-per-task=8", "--partition=big", "--time=60"),
        *("--gres=gpu:4", "--mail-type=FAIL", "--exclusive"),
    ]


def test_each_rule_is_asked_for_where_its_jobs_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SLURM's programs note what they are asked; one partition takes no job without a GPU."""
    refused = "sbatch: error: allocation failure: GPUs only\nsbatch: error: Unspecified error"
    for name, script in {
        "scontrol": "printf 'PartitionName=%s MaxTime=01:00:00\\n' gpu cpu; echo WORD=WORD >&2",
        "sbatch": f'echo "$@" >>\'{tmp_path}/asked\'; case "$*" in *gres*|*=cpu*|*hidden*) ;; '
        f"*) echo '{refused}' >&2; exit 1;; esac",
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    gpu, cpu = Site(gpus_as="gres=gpu", partition="gpu"), Site(partition="cpu", minutes=60)
    assert not list(preflight.problems_of_rules({"preprocess": cpu, "report": cpu, "trace": gpu}))
    assert len((tmp_path / "asked").read_text().splitlines()) == 2, "each request is asked once"
    (typo,) = preflight.problems_of_rules({"report": Site(partition="typo"), "trace": gpu})
    assert typo.startswith("rule report: there is no partition 'typo'")
    (refusal,) = preflight.problems_of_rules({"report": gpu, "weights": gpu})
    assert refusal.startswith(
        "rule report, weights cannot run on this cluster (GPUs only; Unspecified error)"
    )
    hidden = Site(partition="hidden")
    assert not list(preflight.problems_of_rules({"report": hidden})), "sbatch takes it"


@pytest.mark.parametrize(
    ("text", "minutes"), [("1-02:30:00", 1590), ("00:30:00", 30), ("UNLIMITED", 0), ("", 0)]
)
def test_times_as_slurm_writes_them(text: str, minutes: float) -> None:
    assert preflight.minutes(text) == minutes


def test_fields_as_scontrol_writes_them() -> None:
    line = "JobId=7 NodeList=node[1-2] Features=(null) StartTime=2026-01-02T03:04:05"
    assert slurm.fields(line)["NodeList"] == "node[1-2]"
    assert slurm.seconds("Unknown") is slurm.seconds(None) is None
    assert slurm.seconds("1970-01-02T00:00:00") is not None


@pytest.mark.parametrize(
    ("variable", "names"),
    [
        ("0,1", ["0", "1"]),
        ("GPU-aa,MIG-bb", ["GPU-aa", "MIG-bb"]),
        ("", []),
        ("NoDevFiles", []),
        ("-1", []),
        ("2,-1,3", ["2"]),
    ],
)
def test_gpus_as_the_environment_names_them(
    variable: str, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", variable)
    assert visible_gpus() == names


def test_a_job_ends_before_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: 1000.0)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_JOB_END_TIME", "4600")
    assert slurm.end_of_this_job(margin=120) == 4600 - 120
    monkeypatch.setenv("SLURM_JOB_END_TIME", "1100")  # a short job keeps most of its time
    assert slurm.end_of_this_job(margin=120) == 1100 - 20
    monkeypatch.delenv("SLURM_JOB_END_TIME")
    monkeypatch.delenv("SLURM_JOB_ID")
    assert slurm.end_of_this_job(margin=120) is None


STEPS = """\
7|
7.batch|900
7.extern|901
7.0|400
7.1|350
"""


BATCH = {"joules": 1200, "steps": ["7.batch"]}


@pytest.mark.parametrize(
    ("sacct", "sstat", "known"),
    [
        (STEPS, "7.batch|1200", {"joules": 750, "steps": ["7.0", "7.1"]}),
        ("7.batch|0\n7.0|18446744073709551614", "7.batch|1200", BATCH),
        (None, "7.batch|1200", BATCH),
        (None, "7.batch|0", None),
        (None, None, None),
    ],
    ids=["by step", "not counted by sacct", "no accounting", "no counter", "neither"],
)
def test_energy_as_slurm_counts_it(
    sacct: str | None,
    sstat: str | None,
    known: dict[str, object] | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No machine here has a counter: these programs say what SLURM's say where there is one."""
    for name, says in (("sacct", sacct), ("sstat", sstat)):
        ends = f"cat <<'END'\n{says}\nEND" if says else "echo no such storage >&2; exit 1"
        (tmp_path / name).write_text(f"#!/bin/sh\n{ends}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    found = slurm.energy("7")
    assert found == known if known else "SLURM has counted none" in found["absent"]
