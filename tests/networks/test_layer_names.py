"""Layers, from the names of tensors."""

from __future__ import annotations

from soupcli.networks.layer_names import layers_by_name


def test_layers_from_names() -> None:
    """What people call a layer, in the names of the usual libraries."""
    names = {
        "vision_model.encoder.layers.11.mlp.fc1.weight": "vision_model.encoder.layers.11",
        "blocks.3.attn.qkv.weight": "blocks.3",
        "blocks.3.mlp.0.weight": "blocks.3",
        "stages.2.blocks.1.mlp.fc1.weight": "stages.2.blocks.1",
        "layer1.0.downsample.0.weight": "layer1.0",
        "model.layers.4.mlp.experts.7.w1.weight": "model.layers.4",
        "bert.embeddings.word_embeddings.weight": "bert.embeddings.word_embeddings",
        "conv1.weight": "conv1",
        "head.bias": "head",
        "pos_embed": "pos_embed",
        "0.weight": "0",
    }
    found = {name: layer for layer, members in layers_by_name(names).items() for name in members}
    assert found == names
