"""AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101) on rows of a matrix, each as soon as it has its gradient."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soupcli.late import no_grad, torch

if TYPE_CHECKING:
    from torch import Tensor

BETAS = (0.9, 0.999)
EPS = 1e-8


class AdamW:
    """Float64 values and the running moments of their gradients."""

    def __init__(self, values: Tensor) -> None:
        self.values = values.to(torch.float64)
        self.first_moment = torch.zeros_like(self.values)
        self.second_moment = torch.zeros_like(self.values)

    @no_grad
    def step(self, rows: slice, gradient: Tensor, *, number: int, lr: float, weight_decay: float = 0.0) -> None:
        """Step `number` (from 1 on) of these rows, in place."""
        from torch.optim.adamw import adamw

        adamw(
            [self.values[rows]],
            [gradient],
            [self.first_moment[rows]],
            [self.second_moment[rows]],
            [],
            [torch.tensor(float(number - 1))],
            foreach=False,
            amsgrad=False,
            beta1=BETAS[0],
            beta2=BETAS[1],
            lr=lr,
            weight_decay=weight_decay,
            eps=EPS,
            maximize=False,
        )

    def state(self) -> dict[str, list[list[float]]]:
        """Return values and moments as plain numbers."""
        return {
            "values": self.values.tolist(),
            "first_moment": self.first_moment.tolist(),
            "second_moment": self.second_moment.tolist(),
        }

    def restore(self, state: dict[str, list[list[float]]]) -> None:
        """Restore what `state` returned."""
        for name, numbers in state.items():
            getattr(self, name).copy_(torch.tensor(numbers, dtype=torch.float64))
