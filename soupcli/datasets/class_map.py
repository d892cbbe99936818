"""The logits of a set's classes, if it covers only some of the network's classes or counts several as one.

ImageNet-V2, R, Sketch, A and ObjectNet are evaluated among the classes that they cover: other logits are ignored
(Hendrycks et al. 2021, arXiv:1907.07174). If several logits count as one class, as in ObjectNet, the largest of them is
its logit, as in the authors' own evaluation of model soups (datasets/objectnet.py, project_logits).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from soupcli.errors import ValidationError
from soupcli.late import torch

if TYPE_CHECKING:
    from torch import Tensor

    from soupcli.networks.network import Batch, Forward


@dataclass(frozen=True)
class ClassMap:
    """Class c of a set has the logits `columns[c]`. None means logit c, of exactly `count`.

    `source` names the set in messages.
    """

    count: int
    source: str
    columns: tuple[tuple[int, ...], ...] | None = None

    def onto(self, forward: Forward) -> Forward:
        """Return the function from inputs to logits [N, `count`], which raises ValidationError for other classes."""
        if self.columns is None:
            return lambda inputs: self._checked(forward(inputs))
        largest, widest = max(map(max, self.columns)), max(map(len, self.columns))
        index_cm = torch.tensor([[*logits, *logits[:1] * (widest - len(logits))] for logits in self.columns])

        def project(inputs: Batch) -> Tensor:
            logits_nk = forward(inputs)
            if logits_nk.dim() == 2 and logits_nk.shape[1] <= largest:
                raise ValidationError(
                    f"{self.source}: classes: names logit {largest}, the network has {logits_nk.shape[1]} classes",
                    hint="logits are counted from 0",
                )
            return logits_nk[:, index_cm.to(logits_nk.device)].amax(dim=2)

        return project

    def _checked(self, logits_nk: Tensor) -> Tensor:
        if logits_nk.dim() == 2 and logits_nk.shape[1] != self.count:
            raise ValidationError(
                f"{self.source}: has {self.count} classes, the network has {logits_nk.shape[1]}",
                hint="classes: in the recipe says which classes of the network a set covers, class_to_index: which "
                "folder is which",
            )
        return logits_nk
