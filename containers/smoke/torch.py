"""Smoke test of the PyTorch image: one training step, eager and compiled, on every device here."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import base

sys.path.pop(0)  # this folder's torch.py would hide the package

import torch
import torchvision


def loss_after_one_step(device: str, *, compiled: bool) -> float:
    """Train a small network for a step and return the loss after it."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(144, 3)
    ).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    images = torch.randn(5, 1, 8, 8).to(device)
    labels = torch.tensor([0, 1, 2, 0, 1], device=device)

    def loss() -> torch.Tensor:
        return torch.nn.functional.cross_entropy(model(images), labels)

    objective = torch.compile(loss) if compiled else loss
    before = objective()
    before.backward()
    optimizer.step()
    after = objective().item()
    assert after < before.item(), f"the loss did not fall: {before.item()} to {after}"
    return after


def main() -> None:
    """Compare eager and compiled steps on the CPU, and on a GPU if there is one."""
    assert torchvision.ops.nms(torch.tensor([[0.0, 0, 1, 1]]), torch.ones(1), 0.5).tolist() == [0]
    base.require_gpu(torch.cuda.is_available())
    for device in ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]:
        eager = loss_after_one_step(device, compiled=False)
        compiled = loss_after_one_step(device, compiled=True)
        assert abs(eager - compiled) < 1e-3, f"{device}: eager {eager}, compiled {compiled}"


if __name__ == "__main__":
    main()
    print(base.report())
