"""What the wider family has, in PyTorch: gates, other norms and residual blocks.

Maps are (N, C, X, Y, Z).
"""

from collections.abc import Iterator

import torch
from torch import nn

from mri_jax.models import CNNSpec
from mri_jax.models.spec import hidden_units


def blocks(spec: CNNSpec) -> Iterator[tuple[tuple[int, int], int]]:
    """Yields (first, last) conv layer of each block, and its number; all from 1."""
    last = 0
    for block, count in enumerate(spec.repetitions, start=1):
        yield (last + 1, last + count), block
        last += count


def norm(spec: CNNSpec, filters: int) -> nn.Module:
    """The norm after a conv layer."""
    group = spec.norm_group(filters)
    if group is None:
        return nn.BatchNorm3d(filters)
    if group == 1:
        return nn.InstanceNorm3d(filters, affine=True)
    return nn.GroupNorm(filters // group, filters)


class Residual(nn.Module):
    """ReLU of convolutions, the last without its own, plus their input."""

    def __init__(self, convs: nn.Module, before: int, after: int):
        super().__init__()
        self.convs = convs
        same = before == after
        self.shortcut = nn.Identity() if same else nn.Conv3d(before, after, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the block's maps before pooling."""
        return torch.relu(self.convs(x) + self.shortcut(x))


class ChannelGate(nn.Module):
    """Squeeze and excitation; with ``maximum`` the channel gate of CBAM."""

    def __init__(self, channels: int, maximum: bool):
        super().__init__()
        self.maximum = maximum
        hidden = hidden_units(channels)
        self.down = nn.Linear(channels, hidden, bias=False)
        self.up = nn.Linear(hidden, channels, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns gated maps."""
        found = self.up(torch.relu(self.down(x.mean((2, 3, 4)))))
        if self.maximum:
            found = found + self.up(torch.relu(self.down(x.amax((2, 3, 4)))))
        return x * torch.sigmoid(found)[:, :, None, None, None]


class SpatialGate(nn.Module):
    """The spatial gate of CBAM, 3 x 3 x 3."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv3d(2, 1, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns gated maps."""
        both = torch.stack([x.mean(1), x.amax(1)], 1)
        return x * torch.sigmoid(self.conv(both))


class MapGate(nn.Module):
    """A weight for each position."""

    def __init__(self, size: tuple[int, ...]):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns gated maps."""
        return x * self.weight


def gate(kind: str, channels: int, size: tuple[int, ...]) -> nn.Module:
    """The gate of a kind after maps of (X, Y, Z)."""
    made: dict[str, list[nn.Module]] = {
        "se": [ChannelGate(channels, maximum=False)],
        "spatial": [SpatialGate()],
        "cbam": [ChannelGate(channels, maximum=True), SpatialGate()],
        "map": [MapGate(size)],
    }
    return nn.Sequential(*made[kind])
