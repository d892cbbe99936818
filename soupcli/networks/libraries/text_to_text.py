"""Networks that answer in words (T5, BART) as classifiers. The logit of a class is the likelihood of its words.

The words end as the tokenizer ends a target, so `not_equivalent` and `not` are different answers. The T5 paper scores
the generated text (Raffel et al. 2020, arXiv:1910.10683, section 2.4). The likeliest label is that text, unless the
network generates no label at all, which the paper counts as wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from soupcli.errors import NetworkError
from soupcli.late import torch

if TYPE_CHECKING:
    from torch import Tensor, nn

    from soupcli.networks.network import Batch, Forward


def writes(module: nn.Module) -> bool:
    """Whether a network is an encoder with a decoder that predicts tokens."""
    config: Any = getattr(module, "config", None)
    if not getattr(config, "is_encoder_decoder", False):
        return False
    can_shift = hasattr(module, "prepare_decoder_input_ids_from_labels")
    return can_shift and getattr(module, "get_output_embeddings", lambda: None)() is not None


def answers(tokenizer: Any, module: Any, words: Sequence[str]) -> Forward:
    """Return the function from inputs to logits [N, K]: the log-likelihood of each of `words`, in nats.

    Raises NetworkError for words that the tokenizer does not know or does not tell apart.
    """
    targets = [torch.tensor(ids) for ids in _targets(tokenizer, words)]

    def forward(inputs: Batch) -> Tensor:
        assert isinstance(inputs, dict)
        mask = inputs.get("attention_mask")
        encoded = module.get_encoder()(input_ids=inputs["input_ids"], attention_mask=mask, return_dict=True)
        columns = [_log_likelihood(module, encoded, mask, target.to(inputs["input_ids"].device)) for target in targets]
        return torch.stack(columns, dim=1)

    return forward


def _targets(tokenizer: Any, words: Sequence[str]) -> list[list[int]]:
    targets: list[list[int]] = tokenizer(text_target=list(words))["input_ids"]
    for place, (word, ids) in enumerate(zip(words, targets, strict=True)):
        if tokenizer.unk_token_id in ids:
            raise NetworkError(
                f"labels: the tokenizer does not know {word!r}", hint="a label is what the network writes"
            )
        if ids in targets[:place]:
            same = words[targets.index(ids)]
            raise NetworkError(f"labels: {same!r} and {word!r} are the same to the tokenizer")
    return targets


def _log_likelihood(module: Any, encoded: Any, mask: Tensor | None, target_t: Tensor) -> Tensor:
    """Return the log-likelihood of one target after each encoded input, [N]."""
    target_nt = target_t.expand(len(encoded.last_hidden_state), -1)
    logits_ntv: Tensor = module(
        encoder_outputs=encoded,
        attention_mask=mask,
        decoder_input_ids=module.prepare_decoder_input_ids_from_labels(target_nt),
        use_cache=False,
    ).logits
    wide_ntv = logits_ntv.to(torch.promote_types(logits_ntv.dtype, torch.float32))
    return wide_ntv.log_softmax(dim=2).gather(2, target_nt[:, :, None])[:, :, 0].sum(dim=1)
