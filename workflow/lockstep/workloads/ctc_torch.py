"""Connectionist temporal classification in PyTorch (Graves et al., 2006).

PyTorch's own function on float64: of float32 its gradient is wrong by 1e-4 on a second of speech,
since it exponentiates differences of numbers as large as the loss. cuDNN, which computes something
else, takes no float64. An alignment that is impossible has a loss of infinity and a gradient that
is not a number: it is given an empty transcript, and its loss is replaced by 0.
"""

import torch
from torch import Tensor
from torch.nn import functional

from lockstep.datasets import framing
from lockstep.workloads.transcripts import BLANK


def ctc(logits: Tensor, tokens: Tensor, labels: Tensor, samples: Tensor) -> Tensor:
    """Return the negative log-probability of each transcript, ``(B,)``; 0 of impossible ones.

    Args:
        logits: of frames, ``(B, T, outputs)``; output 0 is the blank, letter k is output k + 1.
        tokens: letters of the transcripts, int32 ``(B, L)``.
        labels: how many each has, int32 ``(B,)``.
        samples: of the clips, int32 ``(B,)``.
    """
    place = torch.arange(1, tokens.shape[1], device=tokens.device)
    again = (tokens[:, 1:] == tokens[:, :-1]) & (place < labels[:, None])
    possible = framing.feasible(samples, labels + again.sum(1, dtype=torch.int32))
    shares = functional.log_softmax(logits.double(), dim=2)
    each = functional.ctc_loss(
        shares.transpose(0, 1),
        tokens.long() + 1,
        framing.count(samples).clamp(1, logits.shape[1]).long(),
        torch.where(possible, labels, 0).long(),
        blank=BLANK,
        reduction="none",
    )
    return torch.where(possible, each, 0.0).to(logits.dtype)


def best(logits: Tensor, samples: Tensor) -> Tensor:
    """Return the likeliest output of each frame, int32 ``(B, T)``; blanks behind the last one."""
    place = torch.arange(logits.shape[1], device=logits.device)
    real = place < framing.count(samples)[:, None]
    return torch.where(real, logits.argmax(2), BLANK).int()
