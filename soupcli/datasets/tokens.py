"""`{tokens: wiki.txt, context: 1024, stride: 512}`: the perplexity of a causal language model on a text.

Windows are those of transformers' "Perplexity of fixed-length models". The score equals that of its loop if windows do
not overlap. With a stride, that loop counts one token too few in each window except the first; here every predicted
token counts once. Tensors: ids_nl [N, L] int64, logits_nlv [N, L, V].
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from soupcli.datasets.examples import hardest_first
from soupcli.datasets.input_cache import input_key
from soupcli.datasets.kind import SetKind
from soupcli.datasets.load_context import LoadContext, encoded, tokenizer_of
from soupcli.datasets.prompts import check_is_file, content_hash
from soupcli.errors import ValidationError
from soupcli.files.small_file import read_small
from soupcli.late import functional, torch

if TYPE_CHECKING:
    from torch import Tensor

    from soupcli.datasets.class_map import ClassMap
    from soupcli.files.manifest import Manifest
    from soupcli.metrics.metric import LabelKind
    from soupcli.networks.network import Batch, Forward
    from soupcli.recipe.sets import TokensSet


MAX_TEXT = 1 << 31  # bytes: its tokens are held in memory
NOT_PREDICTED = -100
MAX_LOGITS = 2**27  # of one forward pass, in float32 half a GiB: windows go through the network in smaller parts


@dataclass(frozen=True, eq=False)
class TokenWindows:
    """Windows over one sequence of tokens: window i is `ids[starts[i]:ends[i]]`, its last `labels[i]` are predicted."""

    ids: Tensor  # int64 [T]
    starts: Tensor  # int64 [N]
    ends: Tensor  # int64 [N]
    labels: Tensor  # int64 [N]
    fingerprint: str
    kind: LabelKind = "tokens"
    classes: ClassMap | None = None
    alike: bool = False  # the last one is shorter

    def order(self, difficulty: Tensor | None = None) -> Tensor:
        """Return the given order, or hardest first. All windows except the last have one length."""
        return hardest_first(torch.arange(len(self.labels)), difficulty)

    def batch(self, indices: Tensor, device: torch.device) -> dict[str, Tensor]:
        """`input_ids` [n, L] and `targets` [n, L], the token that follows each, or -100 where it is not predicted.

        Shorter windows are filled up behind their end, which no token before it sees.
        """
        starts_n1, ends_n1 = self.starts[indices, None], self.ends[indices, None]
        place_nl = starts_n1 + torch.arange(int((ends_n1 - starts_n1).max()))
        input_ids = self.ids[place_nl.minimum(ends_n1 - 1)]
        following = place_nl + 1
        predicted = (following < ends_n1) & (following >= ends_n1 - self.labels[indices, None])
        targets = torch.where(predicted, self.ids[following.clamp(max=len(self.ids) - 1)], NOT_PREDICTED)
        return {"input_ids": input_ids.to(device), "targets": targets.to(device)}


def fingerprint(spec: TokensSet, manifest: Manifest | None = None) -> str:
    """Return the fingerprint of the text and of its windows."""
    check_is_file(spec.tokens)
    if spec.tokens.stat().st_size > MAX_TEXT:
        raise ValidationError(f"{spec.tokens}: {spec.tokens.stat().st_size} bytes, a text has at most {MAX_TEXT}")
    return f"tokens:{content_hash(spec.tokens, manifest)}:{json.dumps([spec.context, spec.stride])}"


def load(spec: TokensSet, given: LoadContext) -> TokenWindows:
    """Tokenize the whole text once, and divide it into windows.

    Windows longer than the network's positions are cut to these, which `given.warn` says. Raises ValidationError for a
    text with nothing to predict, NetworkError without a tokenizer.
    """
    tokenizer, longest = tokenizer_of(given), given.network.longest_input
    context = min(spec.context, longest or spec.context)
    if context < spec.context:
        given.warn(
            f"{spec.tokens}: windows of {context} tokens, not {spec.context}: the network has {context} positions"
        )
    key = input_key("tokens", content_hash(spec.tokens, given.cache.manifest), given.mark)
    made = given.cache.made(
        key, lambda: {"ids": _tokenised(spec, tokenizer)}, count=lambda made: len(made["ids"]), fits=_are_ids
    )
    ids = made["ids"]
    if len(ids) < 2:
        raise ValidationError(
            f"{spec.tokens}: has {len(ids)} tokens, at least 2 are needed to predict one", hint="name a longer text"
        )
    starts, ends, predicted = windows(len(ids), context, min(spec.stride or context, context))
    return TokenWindows(ids, starts, ends, predicted, fingerprint(spec, given.cache.manifest))


def _are_ids(kept: dict[str, Tensor]) -> bool:
    """Whether kept tensors are what `_tokenised` makes."""
    return kept.keys() == {"ids"} and kept["ids"].dim() == 1 and kept["ids"].dtype == torch.int64


def _tokenised(spec: TokensSet, tokenizer: Any) -> Tensor:
    """int64 [T]."""
    try:
        text = read_small(spec.tokens, most=MAX_TEXT).decode("utf-8")
    except UnicodeDecodeError as cause:
        raise ValidationError(
            f"{spec.tokens}: not UTF-8 at byte {cause.start}", hint="convert it with iconv"
        ) from cause
    except OSError as cause:
        raise ValidationError(f"{spec.tokens}: {cause.strerror}") from cause
    made = encoded(tokenizer, text, where=str(spec.tokens), verbose=False)
    return torch.tensor(made["input_ids"], dtype=torch.int64)


def windows(length: int, context: int, stride: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return starts, ends and numbers of predicted tokens, int64 [N] each, of windows over `length` tokens.

    The first token of a window is not predicted there; a window that predicts nothing is left out.
    """
    starts = torch.arange(0, max(1, length - context + stride), stride)
    ends = (starts + context).clamp(max=length)
    new = ends - torch.cat([starts[:1], ends[:-1]])
    predicted = torch.minimum(new, ends - starts - 1)
    kept = predicted > 0
    return starts[kept], ends[kept], predicted[kept]


def likelihood_of(forward: Forward, vocabulary: int) -> Forward:
    """Return float64 [N, 2] of a batch of windows: negative log-likelihood of the predicted tokens, and their number.

    `forward` gives the logits [N, L, `vocabulary`] of `input_ids`.
    """

    def sums(batch: Batch) -> Tensor:
        assert isinstance(batch, dict)
        ids_nl, targets_nl = batch["input_ids"], batch["targets"]
        at_once = max(1, MAX_LOGITS // (vocabulary * ids_nl.shape[1]))
        parts = zip(torch.split(ids_nl, at_once), torch.split(targets_nl, at_once), strict=True)
        return torch.cat([_sums(forward({"input_ids": ids}), targets) for ids, targets in parts])

    return sums


def _sums(logits_nlv: Tensor, targets_nl: Tensor) -> Tensor:
    """Each token's likelihood in float32, as transformers has it, and their sum in float64."""
    if logits_nlv.dim() != 3 or logits_nlv.shape[:2] != targets_nl.shape:
        raise ValidationError(
            f"the network gives {list(logits_nlv.shape)} for windows {list(targets_nl.shape)}, "
            "logits [N, length, vocabulary] are needed",
            hint="a set of tokens is for causal language models: model: {transformers: AutoModelForCausalLM}",
        )
    wide = logits_nlv.to(torch.promote_types(logits_nlv.dtype, torch.float32)).flatten(0, 1)
    likelihood_nl = functional.cross_entropy(
        wide, targets_nl.flatten(), ignore_index=NOT_PREDICTED, reduction="none"
    ).view_as(targets_nl)
    counts_n = (targets_nl != NOT_PREDICTED).sum(dim=1)
    return torch.stack([likelihood_nl.cpu().to(torch.float64).sum(dim=1), counts_n.cpu().to(torch.float64)], dim=1)


KIND: SetKind[TokensSet] = SetKind(
    lambda spec, manifest, _: fingerprint(spec, manifest),
    load,
    check=lambda spec, _name, _trust: check_is_file(spec.tokens),
    forward=lambda network: likelihood_of(network.forward, len(network.tokenizer)),
)
