"""`lockstep.workloads.wav2vec2` in PyTorch: from a clip to what the last layer gives."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from lockstep.datasets import framing
from lockstep.workloads import bert, wav2vec2
from lockstep.workloads.bert_torch import Dense, wide
from lockstep.workloads.contract import Settings


class Norm(nn.Module):
    """Layer normalisation in float32 or better of what is float32 or better."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        return functional.layer_norm(x, self.weight.shape, self.weight, self.bias, wav2vec2.EPSILON)


class TimeNorm(Norm):
    """Group normalisation ``(B, T, C)``, a group a channel: over all frames of an example."""

    def forward(self, x: Tensor) -> Tensor:
        channels = self.weight.shape[0]
        first = x.transpose(1, 2)
        found = functional.group_norm(first, channels, self.weight, self.bias, wav2vec2.EPSILON)
        return found.transpose(1, 2)


class Convolution(nn.Module):
    """A convolution over time ``(B, T, in)`` to ``(B, (T - kernel) // stride + 1, out)``.

    Transpositions cost nothing: in memory channels stay first.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, bias: bool) -> None:
        super().__init__()
        self.stride = stride
        self.weight = nn.Parameter(torch.zeros(outputs, inputs, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return convolved(x, self.weight, self.bias, stride=self.stride)


class Positions(nn.Module):
    """A grouped convolution over time that keeps the length, ``(B, T, H)`` to ``(B, T, H)``."""

    def __init__(self, shape: wav2vec2.Size) -> None:
        super().__init__()
        self.groups = shape.groups
        direction = (shape.width, shape.width // shape.groups, shape.kernel)
        self.direction = nn.Parameter(torch.ones(direction))
        self.magnitude = nn.Parameter(torch.ones(shape.kernel))
        self.bias = nn.Parameter(torch.zeros(shape.width))

    def forward(self, x: Tensor) -> Tensor:
        norm = self.direction.square().sum((0, 1)).sqrt()
        kernel = self.direction * (self.magnitude / norm)
        size = kernel.shape[2]
        y = convolved(x, kernel, self.bias, padding=size // 2, groups=self.groups)
        return y[:, : x.shape[1]]  # an even kernel gives a frame more


def convolved(x: Tensor, kernel: Tensor, bias: Tensor | None, **how: int) -> Tensor:
    """Return a convolution whose bias is added in float32 or better."""
    narrow = x.dtype is torch.bfloat16
    y = functional.conv1d(x.transpose(1, 2), kernel, None if narrow else bias, **how)
    y = wide(y).transpose(1, 2)
    return y + bias if narrow and bias is not None else y


class Layer(nn.Module):
    """Attention, then two dense layers: ``(B, T, H)`` to ``(B, T, H)``."""

    def __init__(self, number: int, model: Mapping[str, Any], settings: Settings) -> None:
        super().__init__()
        shape = wav2vec2.size(model)
        self.number, self.heads, self.before = number, shape.heads, model["family"] == "layer"
        self.rate, self.inner_rate = model["dropout"], model["activation_dropout"]
        self.attention_rate = model["attention_dropout"]
        self.dtype = getattr(torch, settings.dtype)
        self.fused = bert.fused(model, settings)
        for name in ("query", "key", "value"):
            setattr(self, name, Dense(shape.width, shape.width))
        self.attended = Dense(shape.width, shape.width)
        self.attended_norm = Norm(shape.width)
        self.inner = Dense(shape.width, shape.inner)
        self.outer = Dense(shape.inner, shape.width)
        self.outer_norm = Norm(shape.width)

    def forward(self, x: Tensor, real: Tensor, random: Any) -> Tensor:
        x = self._added(x, self.attended_norm, lambda x: self._attention(x, real, random))
        return self._added(x, self.outer_norm, lambda x: self._dense(x, random))

    def _added(self, x: Tensor, norm: nn.Module, branch: Any) -> Tensor:
        """Return `x` and a branch, normalised before it or after their sum."""
        if self.before:
            return (wide(x) + wide(branch(norm(wide(x)).to(self.dtype)))).to(self.dtype)
        return norm(wide(x) + wide(branch(x))).to(self.dtype)

    def _dense(self, x: Tensor, random: Any) -> Tensor:
        x = functional.gelu(self.inner(x)).to(self.dtype)
        x = random.dropout(x, wav2vec2.site(self.number, wav2vec2.INNER), self.inner_rate)
        site = wav2vec2.site(self.number, wav2vec2.OUTER)
        return random.dropout(self.outer(x).to(self.dtype), site, self.rate)

    def _attention(self, x: Tensor, real: Tensor, random: Any) -> Tensor:
        query, key, value = (
            getattr(self, name)(x).to(self.dtype).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for name in ("query", "key", "value")
        )
        mask = real[:, None, None]
        if self.fused:
            found = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        else:
            scores = wide(query @ key.transpose(2, 3)) * query.shape[3] ** -0.5
            scores = torch.where(mask, scores, torch.finfo(scores.dtype).min)
            shares = functional.softmax(scores, dim=-1).to(self.dtype)
            site = wav2vec2.site(self.number, wav2vec2.PROBABILITIES)
            found = random.dropout(shares, site, self.attention_rate) @ value
        found = self.attended(found.transpose(1, 2).flatten(2)).to(self.dtype)
        return random.dropout(found, wav2vec2.site(self.number, wav2vec2.ATTENDED), self.rate)


class Trunk(nn.Module):
    """What Wav2Vec2 models begin with; they inherit its parameters' names."""

    def __init__(self, model: Mapping[str, Any], settings: Settings) -> None:
        super().__init__()
        shape, self.layered = wav2vec2.size(model), model["family"] == "layer"
        self.rate, self.dtype = model["dropout"], getattr(torch, settings.dtype)
        channels, inputs = shape.channels, (1, *[shape.channels] * (len(wav2vec2.KERNELS) - 1))
        self.convs = nn.ModuleList(
            Convolution(before, channels, kernel, stride, self.layered)
            for before, kernel, stride in zip(inputs, wav2vec2.KERNELS, wav2vec2.STRIDES)
        )
        norms = [Norm(channels) for _ in self.convs] if self.layered else [TimeNorm(channels)]
        self.conv_norms = nn.ModuleList(norms)
        self.projection_norm = Norm(channels)
        self.projection = Dense(channels, shape.width)
        self.masked = nn.Parameter(torch.zeros(shape.width)) if model["mask_percent"] else None
        self.positions = Positions(shape)
        self.encoder_norm = Norm(shape.width)
        self.layers = nn.ModuleList(Layer(n, model, settings) for n in range(shape.layers))

    def encode(self, audio: Tensor, samples: Tensor, mask: Tensor | None, random: Any) -> Tensor:
        """Return what the last layer gives, of the computation's type ``(B, T, H)``.

        Args:
            audio: normalised samples, 0 behind the last one, ``(B, S)``.
            samples: of each clip, int32 ``(B,)``.
            mask: 1 for frames that are masked, uint8 ``(B, T)``; none if None.
        """
        x = self._features(audio)
        x = self.projection(self.projection_norm(wide(x)).to(self.dtype)).to(self.dtype)
        x = random.dropout(x, wav2vec2.PROJECTED, self.rate)
        if mask is not None and self.masked is not None:
            x = torch.where(mask[:, :, None] > 0, self.masked.to(x.dtype), x)
        place = torch.arange(x.shape[1], device=x.device)
        real = place < framing.count(samples)[:, None]
        x = torch.where(real[:, :, None], x, 0.0)
        x = wide(x) + functional.gelu(self.positions(x))
        if not self.layered:
            x = self.encoder_norm(x)
        x = random.dropout(x.to(self.dtype), wav2vec2.SUMMED, self.rate)
        for layer in self.layers:
            x = layer(x, real, random)
        return self.encoder_norm(wide(x)).to(self.dtype) if self.layered else x

    def _features(self, audio: Tensor) -> Tensor:
        """Return the convolutions' features, ``(B, T, C)``."""
        x = audio[:, :, None].to(self.dtype)
        for k, convolution in enumerate(self.convs):
            x = convolution(x)
            if k < len(self.conv_norms):
                x = self.conv_norms[k](x)
            x = functional.gelu(x).to(self.dtype)
        return x
