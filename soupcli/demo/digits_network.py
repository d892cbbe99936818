"""The network of `soup demo digits`: soup.yaml names it as `model: {python: "network.py:build"}`.

Takes digits of 8 x 8 pixels, 0 (paper) to 1 (ink), as float32 (N, 1, 8, 8); returns logits (N, 10).
"""

from torch import Tensor, nn

PIXELS = 64
CLASSES = 10
MEAN, SPREAD = 0.30, 0.37  # of a pixel over all digits


class Block(nn.Module):
    """x + MLP(LayerNorm(x)), as in a transformer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 2 * width)
        self.gelu = nn.GELU()
        self.down = nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        change: Tensor = self.down(self.gelu(self.up(self.norm(x))))
        return x + change


class DigitNetwork(nn.Module):
    """A residual MLP over the pixels, and a linear head."""

    def __init__(self, width: int = 256, depth: int = 3) -> None:
        super().__init__()
        self.stem = nn.Linear(PIXELS, width)
        self.blocks = nn.Sequential(*[Block(width) for _ in range(depth)])
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, CLASSES)

    def features(self, pixels: Tensor) -> Tensor:
        x = (pixels.flatten(1) - MEAN) / SPREAD  # (N, 64)
        features: Tensor = self.norm(self.blocks(self.stem(x)))
        return features  # (N, width)

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(pixels))
        return logits  # (N, 10)


def build(width: int = 256, depth: int = 3) -> nn.Module:
    return DigitNetwork(width, depth)
