"""Small transformers models, tokenizers and image processors, saved to folders as their own library saves them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [*SPECIAL, "good", "bad", "film", "the", "a", "was", "not", "##ly", "plot", "very"]
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
LABELS = {"id2label": {0: "negative", 1: "positive"}, "label2id": {"negative": 0, "positive": 1}}


def bert_tokenizer(folder: Path, **options: Any) -> Any:
    """A WordPiece tokenizer that gives token types, of at most 12 tokens."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    made = transformers.BertTokenizerFast(str(folder / "vocab.txt"), **{"model_max_length": 12, **options})
    (folder / "vocab.txt").unlink()
    made.save_pretrained(folder)
    return made


def word_tokenizer(folder: Path, **options: Any) -> Any:
    """A tokenizer of whole words without a longest input, which pads on the left unless it is told otherwise."""
    model = tokenizers.Tokenizer(tokenizers.models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    model.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    given = {"unk_token": "[UNK]", "pad_token": "[PAD]", "padding_side": "left", **options}
    made = transformers.PreTrainedTokenizerFast(tokenizer_object=model, **given)
    made.save_pretrained(folder)
    return made


def saved(model: Any, folder: Path, *, seed: int = 0, dtype: torch.dtype | None = None) -> Any:
    """The model with weights of the seed, in evaluation mode, after `save_pretrained(folder)`."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.randn(tensor.shape, generator=generator).mul_(0.3).abs_() + 0.01)
                tensor.mul_(
                    torch.randint(0, 2, tensor.shape, generator=generator).mul_(2).sub_(1) if tensor.dim() > 1 else 1
                )
    if dtype is not None:
        model = model.to(dtype)
    model.save_pretrained(folder)
    return model.eval()


def bert(folder: Path, **options: Any) -> Any:
    """A sentence classifier of two classes."""
    config = transformers.BertConfig(vocab_size=len(WORDS), max_position_embeddings=32, **SIZES, **LABELS)
    bert_tokenizer(folder)
    return saved(transformers.BertForSequenceClassification(config), folder, **options)


def gpt2(folder: Path, *, pad_token_id: int | None = 0, tokenizer: dict[str, Any] | None = None, **options: Any) -> Any:
    """A sentence classifier that looks at the last token, with positions counted from the first."""
    config = transformers.GPT2Config(
        vocab_size=len(WORDS), n_positions=32, n_embd=16, n_layer=2, n_head=2, pad_token_id=pad_token_id, **LABELS
    )
    word_tokenizer(folder, **(tokenizer or {}))
    return saved(transformers.GPT2ForSequenceClassification(config), folder, **options)


def t5(folder: Path, *, words: list[str], **options: Any) -> Any:
    """A network from text to text over `words`, with a tokenizer that ends every text with </s>."""
    vocabulary = {word: i for i, word in enumerate(["<pad>", "</s>", "<unk>", *words])}
    model = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    model.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    model.post_processor = tokenizers.processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=model, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=64
    )
    tokenizer.save_pretrained(folder)
    config = transformers.T5Config(
        vocab_size=len(vocabulary), d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, decoder_start_token_id=0
    )
    return saved(transformers.T5ForConditionalGeneration(config), folder, **options)


def vit(folder: Path, **options: Any) -> Any:
    """A picture classifier of three classes at 32 pixels, with its image processor."""
    names = {0: "cat", 1: "dog", 2: "emu"}
    config = transformers.ViTConfig(
        image_size=32, patch_size=8, id2label=names, label2id={v: k for k, v in names.items()}, **SIZES
    )
    processor = transformers.ViTImageProcessor(size={"height": 32, "width": 32}, image_mean=[0.4, 0.5, 0.6])
    processor.save_pretrained(folder)
    return saved(transformers.ViTForImageClassification(config), folder, **options)


def clip(folder: Path, **options: Any) -> Any:
    """CLIP at 32 pixels, with a tokenizer that ends with the token that its text tower looks at."""
    bert_tokenizer(folder)
    text = {**SIZES, "vocab_size": len(WORDS), "max_position_embeddings": 32, "eos_token_id": 3, "pad_token_id": 0}
    config = transformers.CLIPConfig(
        text_config=text, vision_config={**SIZES, "image_size": 32, "patch_size": 8}, projection_dim=12
    )
    transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32).save_pretrained(folder)
    return saved(transformers.CLIPModel(config), folder, **options)


def align(folder: Path, **options: Any) -> Any:
    """ALIGN: an EfficientNet of three blocks at 32 pixels, and a BERT."""
    bert_tokenizer(folder)
    vision = {
        "image_size": 32,
        "width_coefficient": 0.5,
        "depth_coefficient": 1.0,
        "kernel_sizes": [3, 3, 3],
        "in_channels": [32, 16, 24],
        "out_channels": [16, 24, 32],
        "strides": [1, 2, 2],
        "num_block_repeats": [1, 1, 1],
        "expand_ratios": [1, 6, 6],
        "hidden_dim": 16,
    }
    text = {**SIZES, "vocab_size": len(WORDS), "max_position_embeddings": 32}
    config = transformers.AlignConfig(text_config=text, vision_config=vision, projection_dim=16)
    transformers.EfficientNetImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return saved(transformers.AlignModel(config), folder, **options)
