"""Environment variables that change what a framework computes: refused, or recorded."""

import os
import re
from collections.abc import Mapping

from lockstep.engines.contract import Job
from lockstep.errors import UserError

SWITCHES = (
    "TORCH_COMPILE_DISABLE",
    "TORCHDYNAMO_DISABLE",
    "TORCHDYNAMO_SUPPRESS_ERRORS",
    "JAX_DISABLE_JIT",
)
"""With one of them a compiled variant would run op by op, and its record would say "compiled"."""

OFF = ("", "0", "false", "no", "off")

PREFIXES = (
    *("TORCH", "PYTORCH_", "JAX_", "XLA_", "TF_XLA", "TRITON_", "NVIDIA_TF32", "CUBLAS", "CUDNN_"),
    *("CUDA_LAUNCH", "NCCL_", "OMP_", "GOMP_", "KMP_", "MKL_", "ONEDNN_", "DNNL_"),
    *("MALLOC_", "GLIBC_TUNABLES", "TCMALLOC_", "MIMALLOC_", "LD_PRELOAD"),
)
"""What a framework, or a library below it, reads when it decides how to compute; and what says
where PyTorch has its memory from on a CPU.
"""

FOLDERS = ("_CACHE_DIR", "_HOME")  # how their names end
"""Where compiled programs are kept changes nothing that is computed."""

FOUND: Mapping[str, str] = dict(os.environ)  # before an engine adds its own


def refuse(job: Job) -> None:
    """Check that no variable keeps a compiled variant from being compiled.

    Raises:
        UserError: one does.
    """
    if job.variant["mode"] == "eager":
        return
    for name in SWITCHES:
        value = os.environ.get(name, "")
        if value.lower() not in OFF:
            raise UserError(
                f"{name}={value} is set in the environment: mode {job.variant['mode']} would not "
                f"be compiled; unset it"
            )


def recorded() -> dict[str, str]:
    """Return the variables that were set when this process started and may change a result.

    Of files that one names, the name alone: where a library lies may be a person's folder.
    """
    return {
        name: re.sub(r"[^\s:]*/", "", value) if name == "LD_PRELOAD" else value
        for name, value in sorted(FOUND.items())
        if name.startswith(PREFIXES) and not name.endswith(FOLDERS)
    }
