"""CLIP as it was, with a linear head made of class names: the base of configs/zero-shot-transfer.yaml.

    python configs/zero_shot_head.py ViT-B-32-quickgelu --pretrained openai --classnames names.txt --out zero-shot.pt

The head of a class is the normalised mean of its templates' embeddings times the logit scale, as in Radford et al. 2021
(arXiv:2103.00020), section 3.1.4. The file has the layout of the authors of model soups: `model.*` without the text
transformer, and `classification_head.*`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import open_clip
import torch


def main() -> None:
    """Reads the words of the command line and writes the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="name of a network of open_clip, or local-dir:FOLDER")
    parser.add_argument("--pretrained", help="weights of that name; default: those of the folder")
    parser.add_argument("--classnames", type=Path, required=True, help="one name a line, in the order of the labels")
    parser.add_argument("--templates", type=Path, help="one a line, {} where the name goes; default: a photo of a {}.")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    names = options.classnames.read_text("utf-8").splitlines()
    templates = options.templates.read_text("utf-8").splitlines() if options.templates else ["a photo of a {}."]
    clip = open_clip.create_model(options.model, pretrained=options.pretrained).eval()
    tokenizer = open_clip.get_tokenizer(options.model)
    with torch.inference_mode():
        head_dk = clip.logit_scale.exp() * open_clip.build_zero_shot_classifier(clip, tokenizer, names, templates)
    state = {f"model.{name}": tensor for name, tensor in clip.state_dict().items()}
    state = {name: tensor for name, tensor in state.items() if not name.startswith("model.transformer.")}
    state["classification_head.weight"] = head_dk.T.float().contiguous()
    state["classification_head.bias"] = torch.zeros(len(names))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, options.out)


if __name__ == "__main__":
    main()
