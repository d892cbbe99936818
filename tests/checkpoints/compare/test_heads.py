"""Every head that a list of classes governs is mixed with the same order of classes, or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pytest
import torch

from soupcli.checkpoints.compare.head_rows import moved_rows
from soupcli.checkpoints.compare.heads import heads_for
from soupcli.checkpoints.compare.meanings import check_meanings
from soupcli.checkpoints.formats.class_lists import named_rows, other_lists
from soupcli.checkpoints.open import open_checkpoint
from soupcli.checkpoints.tensor_filter import TensorFilter
from soupcli.errors import MixError

if TYPE_CHECKING:
    from pathlib import Path

    from soupcli.checkpoints.checkpoint import Checkpoint

EVERYTHING = TensorFilter()
ORDER, MOVED = ["cat", "dog", "eel"], ["dog", "eel", "cat"]
SHAPES, MOVED_SHAPES = ["disc", "cube", "star"], ["star", "disc", "cube"]
Shapes = Mapping[str, tuple[int, ...]]
BOX = "roi_heads.box_predictor"
MASK = "roi_heads.mask_predictor.mask_fcn_logits.weight"
# Networks with several tensors that three classes govern: their shapes, and patterns of which each leaves out a part.
NETWORKS: dict[str, tuple[Shapes, list[str]]] = {
    "YOLOv8": (
        {f"model.22.cv{2 + c}.{size}.2.weight": ((64, 3)[c], 8, 1, 1) for size in range(3) for c in range(2)},
        ["model.22.cv3.0.*", "model.22.cv3.1.*", "model.22.cv3.2.*"],
    ),
    "YOLOv5": (
        {
            f"model.24.m.{size}.{name}": (24, 8, 1, 1)[:n]
            for size in range(2)
            for name, n in (("weight", 4), ("bias", 1))
        },
        ["model.24.m.0.*", "model.24.m.1.*"],
    ),
    "Faster R-CNN": (
        {
            f"{BOX}.cls_score.weight": (4, 8),
            f"{BOX}.bbox_pred.weight": (16, 8),
            MASK: (4, 8, 1, 1),
            "rpn.head.cls_logits.weight": (3, 8, 1, 1),
            "rpn.head.bbox_pred.weight": (12, 8, 1, 1),
        },
        [f"{BOX}.cls_score.*", f"{BOX}.bbox_pred.*", MASK],
    ),
    "detectron2": (
        {
            f"{BOX}.cls_score.weight": (4, 8),
            f"{BOX}.bbox_pred.weight": (12, 8),
            "roi_heads.mask_head.predictor.weight": (3, 8, 1, 1),
        },
        [f"{BOX}.cls_score.*", f"{BOX}.bbox_pred.*", "roi_heads.mask_head.*"],
    ),
    "RetinaNet": (
        {
            "head.classification_head.cls_logits.weight": (27, 8, 3, 3),
            "head.regression_head.bbox_reg.weight": (36, 8, 3, 3),
            "head.classification_head.conv.0.0.weight": (8, 8, 3, 3),
        },
        ["head.classification_head.cls_logits.*"],
    ),
    "SSD": (
        {
            f"head.{kind}_head.module_list.{size}.weight": (16 + 8 * size, 8, 3, 3)
            for size in range(2)
            for kind in ("classification", "regression")
        },
        ["head.classification_head.module_list.0.*", "head.classification_head.module_list.1.*"],
    ),
    "DETR": (
        {"class_labels_classifier.weight": (4, 8), "bbox_predictor.layers.2.weight": (4, 8)},
        ["class_labels_classifier.*"],
    ),
    "RT-DETR": (
        {
            "model.enc_score_head.weight": (3, 8),
            "model.denoising_class_embed.weight": (4, 8),
            **{f"model.decoder.class_embed.{layer}.weight": (3, 8) for layer in range(2)},
        },
        ["model.enc_score_head.*", "model.denoising_class_embed.*", "model.decoder.class_embed.*"],
    ),
    "a CRF": (
        {"classifier.weight": (3, 8), "crf.transitions": (3, 3), "crf.start_transitions": (3,)},
        ["classifier.*", "crf.transitions", "crf.start_transitions"],
    ),
    "flair": ({"linear.weight": (3, 8), "transitions": (5, 5)}, ["linear.*", "transitions"]),
    "priors": ({"head.weight": (3, 8), "class_prior": (3,)}, ["head.*", "class_prior"]),
    "a condition": ({"head.weight": (3, 8), "label_emb.weight": (4, 8)}, ["head.*", "label_emb.*"]),
    "DeiT": ({"head.weight": (3, 8), "head_dist.weight": (3, 8)}, ["head.*", "head_dist.*"]),
    "no names of heads": ({"proj_a.weight": (3, 8), "proj_b.weight": (3, 8)}, ["proj_a.*", "proj_b.*"]),
}


def run(file: Path, shapes: Shapes, **said: object) -> Checkpoint:
    torch.save({"model": {name: torch.zeros(shape) for name, shape in shapes.items()}, **said}, file)
    return open_checkpoint(file)


@pytest.mark.parametrize("network", NETWORKS)
def test_every_head(network: str, tmp_path: Path) -> None:
    """Whoever excludes all heads but one is refused, and all that the hint excludes is enough."""
    shapes, patterns = NETWORKS[network]
    shapes = {**shapes, "body.weight": (8, 8)}
    pair = [run(tmp_path / f"{n}.pt", shapes, names=names) for n, names in enumerate((ORDER, MOVED))]
    hint = ""
    for left in patterns:
        others = tuple(pattern for pattern in patterns if pattern != left)
        with pytest.raises(MixError, match="stand for other classes") as refused:
            check_meanings(pair, TensorFilter(exclude=others))
        hint = str(refused.value.hint)
    assert check_meanings(pair, TensorFilter(exclude=tuple(patterns))) == []
    words = hint.partition("--exclude ")[2].removeprefix("with its name, such as ")
    assert check_meanings(pair, TensorFilter(exclude=tuple(word.strip("'") for word in words.split()))) == []
    assert "put the rows" not in hint or len(patterns) == 1
    same = run(tmp_path / "same.pt", shapes, names=ORDER)
    assert check_meanings([pair[0], same], EVERYTHING) == []


def test_a_list_for_each_head(tmp_path: Path) -> None:
    """Of several heads as large as each other a list governs the one that it is named as, and no other."""
    shapes = {"body.weight": (8, 8), "color_head.weight": (3, 8), "shape_head.weight": (3, 8)}
    one = run(tmp_path / "a.pt", shapes, color_labels=ORDER, shape_labels=SHAPES)
    other = run(tmp_path / "b.pt", shapes, color_labels=MOVED, shape_labels=SHAPES)
    both = run(tmp_path / "c.pt", shapes, color_labels=MOVED, shape_labels=MOVED_SHAPES)
    without_color, without_shape = (TensorFilter(exclude=(f"{of}_head.*",)) for of in ("color", "shape"))
    assert check_meanings([one, other], without_color) == []
    with pytest.raises(MixError, match=r"rows of 'color_head.weight'"):
        check_meanings([one, other], without_shape)
    with pytest.raises(MixError, match=r"rows of 'shape_head.weight'"):
        check_meanings([one, both], without_color)


@pytest.mark.parametrize("head", ["fc", "net.2"])
def test_one_output_for_two_classes(head: str, tmp_path: Path) -> None:
    """The sign of one output says which of two classes it is: networks that mean the opposite are refused."""
    shapes = {"body.weight": (8, 8), f"{head}.weight": (1, 8), f"{head}.bias": (1,)}
    pair = [run(tmp_path / f"{n}.pt", shapes, classes=names) for n, names in enumerate((["no", "yes"], ["yes", "no"]))]
    with pytest.raises(MixError, match=f"rows of '{head}.weight' stand for other classes"):
        check_meanings(pair, EVERYTHING)
    assert check_meanings(pair, TensorFilter(exclude=(f"{head}.*",))) == []


def test_modules_for_names(tmp_path: Path) -> None:
    """Modules that are numbered as a list of tasks is are said to be mixed with others; layers are none of these."""
    shapes = {f"adapters.{number}.weight": (8, 8) for number in range(3)} | {"layers.0.weight": (8, 8)}
    pair = [run(tmp_path / f"{n}.pt", shapes, tasks=names) for n, names in enumerate((ORDER, MOVED))]
    [note] = check_meanings(pair, EVERYTHING)
    assert "tasks lists dog, eel, cat" in note and "if 'adapters.*' are the modules of these" in note
    assert check_meanings(pair, TensorFilter(exclude=("adapters.*",))) == []
    other = [run(tmp_path / f"o{n}.pt", shapes, animals=names) for n, names in enumerate((ORDER, MOVED))]
    assert check_meanings(other, EVERYTHING) == []


def test_lists_in_a_list(tmp_path: Path) -> None:
    """The classes of several tasks may be lists in a list, or in a list of maps: each is one of its own."""
    shapes = {"body.weight": (8, 8), "heads.0.weight": (3, 8), "heads.1.weight": (3, 8)}
    for form in ("lists", "maps"):
        made = []
        for n, orders in enumerate(((ORDER, SHAPES), (ORDER, MOVED_SHAPES))):
            said = [*orders] if form == "lists" else [{"task": "x", "labels": names} for names in orders]
            made.append(run(tmp_path / f"{form}{n}.pt", shapes, hyper_parameters={"labels": said}))
        with pytest.raises(MixError, match="star, disc, cube"):
            check_meanings(made, EVERYTHING)
    assert named_rows({"labels": [["n01440764", "tench"], ["n01443537", "goldfish"]]}) == {
        "labels": ["n01440764", "n01443537"]
    }
    assert other_lists({"labels": [["no", "yes"], ["off", "on"]]}).keys() == {"labels.0", "labels.1"}


def test_letters_in_a_text(tmp_path: Path) -> None:
    """deepspeech.pytorch's `labels` is a text, of which each letter is an output. A word is no list of letters."""
    shapes = {"body.weight": (8, 8), "fc.weight": (5, 8)}
    one, other = (run(tmp_path / f"{letters}.pt", shapes, labels=letters) for letters in ("_'abc", "_'bac"))
    with pytest.raises(MixError, match=r"b, a, c.* a, b, c: rows of 'fc\.weight' stand for other"):
        check_meanings([one, other], EVERYTHING)
    assert named_rows({"labels": "letters"}) == {}


def test_layers_that_may_be_heads(tmp_path: Path) -> None:
    """A hidden layer as wide as the classes is no head if the user excludes another one; that is said."""
    shapes = {"body.weight": (3, 3), "top.weight": (3, 3)}
    pair = [run(tmp_path / f"{n}.pt", shapes, names=names) for n, names in enumerate((ORDER, MOVED))]
    [note] = check_meanings(pair, TensorFilter(exclude=("top.*",)))
    assert "'body.weight' has 3 rows and is mixed" in note
    found = heads_for(pair[0], TensorFilter(exclude=("top.*",)), 3)
    assert (found.every, found.mixed, found.maybe) == (["top.weight"], [], ["body.weight"])


def test_no_head_is_known(tmp_path: Path) -> None:
    """Two orders of classes beside networks without any head for them are said; a list of something else is not."""
    shapes = {"body.weight": (8, 8), "embeds.weight": (7, 8)}
    pair = [run(tmp_path / f"{n}.pt", shapes, names=names) for n, names in enumerate((ORDER, MOVED))]
    [note] = check_meanings(pair, EVERYTHING)
    assert "its classes are dog, eel, cat" in note and "no tensor with a row for each is known" in note
    pair = [run(tmp_path / f"{n}.pt", shapes, animals=names) for n, names in enumerate((ORDER, MOVED))]
    assert check_meanings(pair, EVERYTHING) == []


def test_rows_of_one_head_of_several(tmp_path: Path) -> None:
    """Without lists of classes, rows tell that one of two heads as large has its classes in another order."""
    torch.manual_seed(0)
    heads = {name: torch.randn(12, 64) for name in ("head.weight", "head_dist.weight")}
    moved = {**heads, "head_dist.weight": heads["head_dist.weight"].roll(1, 0)}
    for name, state in (("a", heads), ("b", moved), ("c", heads)):
        torch.save(state, tmp_path / f"{name}.pt")
    one, two, same = (open_checkpoint(tmp_path / f"{name}.pt") for name in "abc")
    assert "rows of 'head_dist.weight' are like those" in str(moved_rows([one, two], EVERYTHING))
    assert moved_rows([one, same], EVERYTHING) is None
