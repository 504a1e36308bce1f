"""How JAX is set up: devices and flags, whatever stands in the environment."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.conftest import PATIENCE, environment

# As Slurm sets them for the one task of ours that each node has.
STEP = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_NODELIST": "localhost",
    "SLURM_NTASKS": "1",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
}


def run(code: str, **more: str) -> str:
    """Run code in a Python of its own."""
    kept = {k: v for k, v in environment().items() if k != "XLA_FLAGS"}
    command = [sys.executable, "-c", textwrap.dedent(code)]
    answer = subprocess.run(
        command, env={**kept, **more}, capture_output=True, text=True, timeout=PATIENCE
    )
    assert answer.returncode == 0, answer.stderr
    return answer.stdout.strip()


def test_a_process_takes_all_devices_of_its_node_in_a_slurm_step_too(tmp_path: Path) -> None:
    seen = run(
        f"""
        from pathlib import Path
        from jax._src import xla_bridge  # nothing public tells
        from lockstep.engines import jax_runtime
        from lockstep.engines.contract import Topology

        topology = Topology(local_devices=4, rendezvous=Path({str(tmp_path)!r}))
        jax_runtime._join(topology)
        print(xla_bridge.CUDA_VISIBLE_DEVICES.value)
        """,
        **STEP,
    )
    assert seen == "0,1,2,3"


@pytest.mark.parametrize("given", ["", "--xla_cpu_enable_fast_math=false"])
def test_deterministic_reaches_the_compiler_beside_a_persons_own_flags(given: str) -> None:
    answer = run(
        """
        import os
        from types import SimpleNamespace
        import jax
        from lockstep.engines import jax_runtime
        from lockstep.engines.contract import Topology

        variant = {"precision": "float32", "deterministic": True, "mode": "jit"}
        job = SimpleNamespace(variant=variant, caches=None, topology=Topology())
        jax_runtime.configure(job)
        jax_runtime.configure(job)
        jax.jit(lambda x: x + 1)(1.0)  # XLA ends at a flag that it does not know
        print(jax_runtime.facts(job, 1)["deterministic"], os.environ["XLA_FLAGS"])
        """,
        XLA_FLAGS=given,
    )
    assert answer.split() == ["True", *given.split(), "--xla_gpu_deterministic_ops=true"]
