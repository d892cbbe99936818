"""nnU-Net's folders: `dataset.json` and `plans.json`, and below them a folder for each fold of the training data.

file = final_checkpoint(Path("nnUNetTrainer__nnUNetPlans__2d"))   # .../fold_0/checkpoint_final.pth
folder = model_folder(file)                            # the folder that nnUNetPredictor opens
"""

from __future__ import annotations

import re
from pathlib import Path

from soupcli.errors import CheckpointError
from soupcli.wording import natural_order

FORMAT = "nnU-Net"
FINAL = "checkpoint_final.pth"  # what its predictor opens unless told otherwise
FOLD = re.compile(r"fold_(\d+|all)")
ALL_FOLDS = "fold_all"  # of a network that is of no single fold
BESIDE = ("dataset.json", "plans.json")


def model_folder(file: Path) -> Path | None:
    """The folder of the model that a fold's checkpoint belongs to, if its settings lie there."""
    above = file.absolute().parent.parent
    is_fold = FOLD.fullmatch(file.absolute().parent.name) is not None
    if not is_fold or not all((above / name).is_file() for name in BESIDE):
        return None
    return file.parent.parent if file.parent.name else above


def final_checkpoint(folder: Path) -> Path | None:
    """The final checkpoint of a fold, or of the only fold of a model; None if the folder is neither.

    Raises CheckpointError if the model has several folds: each is a network of its own.
    """
    if model_folder(folder / FINAL) is not None and (folder / FINAL).is_file():
        return folder / FINAL
    if not all((folder / name).is_file() for name in BESIDE):
        return None
    folds = [entry for entry in folder.iterdir() if FOLD.fullmatch(entry.name) and (entry / FINAL).is_file()]
    folds.sort(key=lambda entry: natural_order(entry.name))
    if len(folds) > 1:
        raise CheckpointError(
            f"{folder}: holds {len(folds)} folds, each with a network of its own: "
            f"{', '.join(entry.name for entry in folds)}",
            hint=f"mix the folds: --ckpts '{folder}/fold_*/{FINAL}'; or one of each run: "
            f"--ckpts '{folder.parent}/*/{folds[0].name}'",
        )
    return folds[0] / FINAL if folds else None
