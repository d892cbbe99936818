"""The files that describe a network, wherever its library reads them."""

from __future__ import annotations

from pathlib import Path

from soupcli.networks.configuration import configuration_files, key_of_configuration

MODULE = ("config.json", "tokenizer.json", "sentence_bert_config.json", "vocab.txt")


def test_modules_in_folders_of_their_own(tmp_path: Path) -> None:
    """Their tokenizers and lengths count, those of checkpoints in the folder and of folders without modules do not."""
    names = ["modules.json", *(f"0_Transformer/{name}" for name in MODULE), "1_Pooling/config.json"]
    others = ["checkpoint-1/modules.json", "checkpoint-1/0_Transformer/tokenizer.json", "0_Transformer/notes.txt"]
    for name in (*names, *others):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    assert {str(file.relative_to(tmp_path)) for file in configuration_files(tmp_path)} == {*names}
    before = key_of_configuration(tmp_path)
    (tmp_path / "0_Transformer/sentence_bert_config.json").write_text('{"max_seq_length": 7}')
    assert key_of_configuration(tmp_path) != before
    (tmp_path / "modules.json").unlink()
    assert [file.name for file in configuration_files(tmp_path)] == ["config.json", "config.json"]
