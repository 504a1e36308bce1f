"""For people who watch: a progress bar or plain lines, a log file, TensorBoard, W&B offline."""

import sys
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

from lockstep import terminal
from lockstep.errors import UserError
from lockstep.training.spec import RunSpec


class Tracking:
    """Tells of a run's windows and epochs; only rank 0 has one."""

    def __init__(self, spec: RunSpec, total_steps: int, step: int) -> None:
        self.spec = spec
        self.log_file = open(Path(spec.folder) / "log.txt", "a", buffering=1)  # noqa: SIM115
        self.bar = None
        self.terminal = terminal.find()
        if self.terminal is not None:
            self.bar = tqdm(
                total=total_steps,
                initial=step,
                desc=spec.name,
                unit="step",
                file=self.terminal,
                leave=False,
                dynamic_ncols=True,
            )
        self.board = _tensorboard(spec, step) if spec.tensorboard else None
        self.wandb = _wandb(spec) if spec.wandb else None

    def say(self, text: str) -> None:
        """Write a line to the log file, and to a terminal or a job's log."""
        line = f"{time.strftime('%Y-%m-%d %H:%M:%S')} {self.spec.name}: {text}"
        self.log_file.write(line + "\n")
        if self.terminal is sys.stderr and self.bar is not None:
            self.bar.write(line, file=sys.stderr)
        else:
            print(line, file=sys.stderr, flush=True)

    def report(self, window: dict[str, Any], epoch: dict[str, Any] | None) -> None:
        """Show a finished window, and an epoch if it is its last."""
        step = window["step"] + window["steps"]
        rate = self.spec.recipe["global_batch"] * window["steps"] / window["seconds"]
        scalars = {"loss/train": window["loss"], "speed/examples_per_second": rate}
        if self.bar is not None:
            self.bar.update(window["steps"])
            self.bar.set_postfix(loss=f"{window['loss']:.4f}")
        if epoch is not None:
            tests = {k: v for k, v in epoch.items() if k.startswith("test_")}
            scalars |= {f"{k.removeprefix('test_')}/test": v for k, v in tests.items()}
            shown = "  ".join(f"{k} {v:.4f}" for k, v in tests.items())
            self.say(
                f"epoch {epoch['epoch'] + 1}  step {step}  train_loss {epoch['train_loss']:.4f}  "
                f"{shown}  {rate:.0f} examples/s"
            )
        for name, value in scalars.items():
            if self.board is not None:
                self.board.add_scalar(name, value, step)
        if self.wandb is not None:
            self.wandb.log(scalars, step=step)

    def close(self) -> None:
        """Flush and close everything."""
        if self.bar is not None:
            self.bar.close()
        if self.board is not None:
            self.board.close()
        if self.wandb is not None:
            self.wandb.finish()
        if self.terminal is not None and self.terminal is not sys.stderr:
            self.terminal.close()
        self.log_file.close()


def _tensorboard(spec: RunSpec, step: int) -> Any:
    """One TensorBoard over a study's `runs/` shows all variants of a workload side by side."""
    from tensorboardX import SummaryWriter

    # A run repeats the steps after its checkpoint, or all; what was written of them is purged.
    return SummaryWriter(spec.folder, purge_step=step + 1, write_to_disk=True)


def _wandb(spec: RunSpec) -> Any:
    try:
        import wandb
    except ImportError as error:
        raise UserError(
            "tracking.wandb is on, but the package wandb is not installed here"
        ) from error
    return wandb.init(
        mode="offline",
        project=spec.study,
        name=spec.name,
        group=spec.workload,
        id=spec.identity[:32],
        dir=spec.folder,
        config={"recipe": dict(spec.recipe), "variant": dict(spec.settings), "seed": spec.seed},
        settings=wandb.Settings(silent=True),
    )
