"""The known causes of bad soups, as one table. docs/troubleshooting.md is made from it.

    for verdict in judge(facts):
        verdict.cause.words, verdict.evidence, verdict.cause.remedy

A cause has a name, a test that returns the evidence for it (None: not the cause), a description and a remedy. Rows are
tried in order. With scores, a verdict depends on effects: the score of the soup without an ingredient, and of the
ingredient itself (effects.py). Weights only tell in which way the ingredient is wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from soupcli.diagnosis import basins, culprits, effects, evidence

if TYPE_CHECKING:
    from soupcli.diagnosis.evidence import Evidence
    from soupcli.diagnosis.facts import Facts


class Cause(NamedTuple):
    """One row of the table."""

    name: str
    find: Callable[[Facts], Evidence | None]
    words: str
    remedy: str


class Diagnosis(NamedTuple):
    """A cause that was found, and its evidence."""

    cause: Cause
    evidence: Evidence


def judge(facts: Facts) -> list[Diagnosis]:
    """Return every cause with evidence, in the order of the table; an effect alone only if no cause explains it."""
    found = ((cause, cause.find(facts)) for cause in CAUSES)
    told = [Diagnosis(cause, evidence) for cause, evidence in found if evidence is not None]
    explained = [one for cause, evidence in told if cause.find is not culprits.spoiling for one in evidence.accused]
    return [
        each
        for each in told
        if each.cause.find is not culprits.spoiling or not any(one in explained for one in each.evidence.accused)
    ]


def markdown() -> str:
    """Return the table for the documentation."""
    return "\n".join(f"## {cause.name}\n\n{cause.words}\n\n**What to do.** {cause.remedy}\n" for cause in CAUSES)


CAUSES: tuple[Cause, ...] = (
    Cause(
        "different networks",
        evidence.other_networks,
        "The checkpoints are of different networks: tensors differ in names or shapes, or adapters are mixed with "
        "whole networks. They have no mean.",
        "Leave out those that differ. For an adapter among whole networks, first merge it into its base "
        "(`merge_and_unload`).",
    ),
    Cause(
        "heads for different classes",
        evidence.other_classes,
        "The networks differ only in the layers that give the outputs: these have other classes or other names.",
        "Mix all other layers: `--exclude 'head.*'` (with the name of the layer). The soup then has the best "
        "ingredient's head, or with `--base` the base's.",
    ),
    Cause(
        "weights of different kinds",
        evidence.other_keys,
        "The files hold several state dicts, and different ones were taken from them: averaged weights (EMA) of one "
        "run are not mixed with trained ones of another.",
        "Take the same state dict from all: `--key state_dict`.",
    ),
    Cause(
        "fp16 overflow",
        evidence.overflow,
        "A weight exceeded the largest number of float16 and was saved as infinite. The checkpoint is broken, and so "
        "is every soup with it.",
        "Leave it out, or save it again from the training's own float32 weights, or in bfloat16.",
    ),
    Cause(
        "training diverged",
        evidence.diverged,
        "A weight is not a number or infinite.",
        "Leave this ingredient out, or take an earlier checkpoint of its run. A smaller learning rate or clipped "
        "gradients prevent it.",
    ),
    Cause(
        "weights of zeros",
        evidence.zeros,
        "Whole matrices of a checkpoint are 0, but not those of the others: it was not saved completely, as happens "
        "when training is spread over processes.",
        "Leave it out, or save it again from all processes.",
    ),
    Cause(
        "the same weights twice",
        evidence.copies,
        "Two of the checkpoints have the same weights: `uniform` counts them twice, and `greedy` spends an "
        "evaluation on a candidate that changes little.",
        "Give each once. Two runs with the same weights used the same seed and settings: change one of them.",
    ),
    Cause(
        "labels in another order",
        culprits.labels,
        "One ingredient is right if its classes are renamed: it was trained with the labels in another order, and no "
        "file beside it says so. If this holds for all, the validation set counts its classes differently than the "
        "training.",
        "Leave it out, or reorder the rows of its last layer; sort the classes alike in all runs. For the set: "
        "`class_order:` or `class_to_index:`, or the training's labels.",
    ),
    Cause(
        "neurons in another order",
        culprits.permuted,
        "The neurons of one ingredient are in another order than the others': by itself it computes the same, but "
        "its mean with the others is useless.",
        "Leave it out, or bring its neurons into the order of the others (git re-basin, arXiv:2209.04836). Pruning "
        "and conversion tools may reorder neurons.",
    ),
    Cause(
        "another base",
        basins.wrong_base,
        "The ingredients were not fine-tuned from the weights after `--base`: they are close to one another and far "
        "from it, or it is itself a fine-tuned run.",
        "Name the checkpoint that the runs began with. Until then, distances and angles at the base mean nothing, "
        "nor do Model Stock and WiSE-FT with it.",
    ),
    Cause(
        "no common start",
        basins.strangers,
        "The ingredients were not fine-tuned from the same weights, or nothing of the start is left in them: their "
        "neurons no longer correspond, so the average is useless. Two pre-trainings are two starts, even from the "
        "same random numbers. Mixing works inside one basin, which a common pre-trained start gives.",
        "Mix only those of one group, or fine-tune all from one checkpoint with the same head. Ensembles (averaged "
        "outputs) need no common start.",
    ),
    Cause(
        "a layer made anew",
        basins.new_layers,
        "One layer, most often the head, began with other random numbers in some of the ingredients, while the other "
        "layers have a common start.",
        "Fit the head once (a linear probe) or seed it alike, save it with the start, and fine-tune all from there. "
        "For existing runs: `--exclude 'head.*'`, then fit one head on the soup.",
    ),
    Cause(
        "learning rate too high",
        culprits.rate_too_high,
        "One ingredient has moved much farther than the others: it left their common basin.",
        "Leave it out (`soup greedy` does), and fine-tune it again with a smaller learning rate or fewer epochs. "
        "With `--val` its score shows whether it is the one that is wrong.",
    ),
    Cause(
        "one ingredient dominates",
        culprits.dominating,
        "One ingredient has moved much farther than the others and is no worse than they are. The others have hardly "
        "left the start, so the mean pulls it back, and greedy keeps only this one.",
        "Train the others as long, or at as high a rate: a soup needs ingredients that are about equally good.",
    ),
    Cause(
        "batch-norm statistics",
        basins.statistics,
        "The running statistics of batch norm were averaged, and they do not fit the averaged weights: the variance "
        "of a mean is not the mean of the variances.",
        "Estimate them again for each soup: `--recalibrate`.",
    ),
    Cause(
        "different inputs",
        evidence.inputs,
        "By the files beside the weights, the networks were trained on different inputs or name their outputs "
        "differently: picture size, mean and deviation, tokenizer, or the order of the classes.",
        "Mix only those with the same settings. If the files are wrong and the training was right, correct them: the "
        "soup carries on the best ingredient's.",
    ),
    Cause(
        "different settings",
        evidence.computed,
        "By the files beside the weights, the networks compute different things from the same weights: another "
        "pooling, activation, list of modules or prediction of the noise.",
        "Mix only those with the same settings. If the files are wrong and the training was right, correct them: the "
        "soup carries on the best ingredient's.",
    ),
    Cause(
        "trained on other inputs",
        culprits.other_inputs,
        "One ingredient has moved no farther than the others and is far worse here: it learned something else. "
        "Features or channels in another order, another scale, wrong labels or another set of examples cause this.",
        "Compare its data loading with that of the others (order of channels, mean and deviation, tokenizer, "
        "labels), or leave it out. One that was trained far less than the others looks alike: `--base` tells them "
        "apart.",
    ),
    Cause(
        "ranges of quantisation",
        evidence.ranges,
        "The checkpoints come from quantisation-aware training and hold observed ranges, scales or zero points, "
        "which differ. Their means do not fit the mean of the weights.",
        "Mix the float checkpoints and calibrate the soup, or observe the ranges again on a few batches.",
    ),
    Cause(
        "too far apart",
        basins.too_far,
        "The ingredients have a common start, but the mean of all is worse than the worst one: they have moved so "
        "far from the start that they are in different basins.",
        "Fine-tune for shorter or with smaller learning rates. `soup greedy` finds those that still go together.",
    ),
    Cause(
        "one ingredient spoils the soup",
        culprits.spoiling,
        "The soup is surely better without one ingredient, and nothing in its weights tells why.",
        "Leave it out (`soup greedy` does), and compare its training with that of the others.",
    ),
    Cause(
        "too few validation examples",
        effects.too_few,
        "The set is too small to tell ingredients and soup apart: the ranking, and what greedy keeps, is chance.",
        "Use more examples: four times as many halve the error. `metric: nll` says more of each example than accuracy.",
    ),
)
