"""The pages of single tasks: the function of each runs as it stands, on networks of the real libraries, in 25 lines."""

from __future__ import annotations

import json
import re
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from PIL import Image
from torch import nn

from tests.conftest import Ran

DOCS = Path(__file__).parents[2] / "docs"
Soup = Callable[..., Ran]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)


def write(page: str) -> dict[str, Any]:
    """Writes the page's function and recipe here. Returns what the function's module defines; run it after its data."""
    text = (DOCS / f"{page}.md").read_text("utf-8").partition("## YOLO")[0]  # which make layouts runs
    [program] = re.findall(r"```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    [recipe] = re.findall(r"```yaml\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert len([line for line in program.splitlines() if line.strip()]) <= 25
    Path("my_eval.py").write_text(program)
    Path("soup.yaml").write_text(recipe)
    defined: dict[str, Any] = {}
    exec(compile(program, "my_eval.py", "exec"), defined)  # the page's own words
    return defined


def picture(path: str) -> None:
    """A picture of noise."""
    Image.fromarray(torch.randint(0, 256, (64, 64, 3), dtype=torch.uint8).numpy()).save(path)


def saved(build: Callable[[], nn.Module]) -> nn.Module:
    """Two checkpoints of torch.save, a little apart. Returns a network with their mean."""
    start = build()
    states = []
    for number in range(2):
        state = {
            n: t + 0.02 * torch.randn_like(t) if t.is_floating_point() else t for n, t in start.state_dict().items()
        }
        state = {n: t.abs() if n.endswith("running_var") else t for n, t in state.items()}
        Path(f"runs/{number}").mkdir(parents=True)
        torch.save(state, f"runs/{number}/model.pth")
        states.append(state)
    start.load_state_dict({n: (t.double() + states[1][n].double()).div(2).to(t.dtype) for n, t in states[0].items()})
    return start.eval()


def of_soup(soup: Soup, name: str) -> dict[str, float]:
    """The metrics of the mean of all checkpoints on a set."""
    ran = soup("uniform", "--ckpts", "runs", "--val", name, "--json", "--force")
    assert ran.code == 0, ran.stderr
    return {key: of["value"] for key, of in json.loads(ran.stdout)["soup"]["scores"][name].items()}


def test_regression(soup: Soup) -> None:
    """The errors of the soup are those of scikit-learn, and less of them is better."""
    metrics = pytest.importorskip("sklearn.metrics")
    rows = torch.rand(20, 3)
    Path("houses.csv").write_text("rooms,area,price\n" + "".join(f"{r},{a},{p}\n" for r, a, p in rows.tolist()))
    Path("my_model.py").write_text(
        "from torch import nn\n\n\ndef build():\n    return nn.Sequential(nn.Linear(2, 1))\n"
    )
    write("regression")
    mean = saved(lambda: nn.Sequential(nn.Linear(2, 1)))
    with torch.no_grad():
        predicted = mean(rows[:, :2]).squeeze(1).numpy()
    found = of_soup(soup, "houses")
    assert found["mae"] == pytest.approx(metrics.mean_absolute_error(rows[:, 2], predicted), rel=1e-5)
    assert found["rmse"] == pytest.approx(metrics.root_mean_squared_error(rows[:, 2], predicted), rel=1e-5)
    ranked = json.loads(soup("rank", "--ckpts", "runs", "--val", "houses", "--json").stdout)["ingredients"]
    errors = [one["scores"]["houses"]["mae"]["value"] for one in ranked]
    assert errors == sorted(errors)


def test_embeddings(soup: Soup) -> None:
    """The page's function returns scipy's rank correlation, of the embeddings of the soup."""
    stats = pytest.importorskip("scipy.stats")
    pairs = [("soup", "soups", 0.9), ("soup", "car", 0.1), ("cat", "act", 0.8), ("a", "zzz", 0.2), ("one", "two", 0.4)]
    Path("sts-dev.csv").write_text("sentence1,sentence2,score\n" + "".join(f"{a},{b},{s}\n" for a, b, s in pairs))
    model = """
from torch import nn, tensor
class Letters(nn.Module):
    def __init__(self):
        super().__init__()
        self.bag = nn.EmbeddingBag(128, 4)
    def encode(self, sentences, convert_to_tensor, show_progress_bar):
        return nn.functional.normalize(self.bag(*self.letters(sentences)))
    def letters(self, sentences):
        starts = [sum(map(len, sentences[:n])) for n in range(len(sentences))]
        return tensor([ord(letter) for letter in "".join(sentences)]), tensor(starts)
"""
    Path("my_model.py").write_text(model)
    defined: dict[str, Any] = {}
    exec(compile(model, "my_model.py", "exec"), defined)
    evaluate = write("embeddings")["evaluate"]
    Path("soup.yaml").write_text(Path("soup.yaml").read_text() + 'model: {python: "my_model.py:Letters"}\n')
    mean = saved(defined["Letters"])
    with torch.no_grad():
        first, second = (mean.encode([pair[n] for pair in pairs], True, False) for n in (0, 1))  # type: ignore[operator]
        assert evaluate(mean)["n"] == 5
    expected = stats.spearmanr((first * second).sum(1), [score for *_, score in pairs]).statistic
    assert of_soup(soup, "sts")["spearman"] == pytest.approx(expected)


def test_several_classes_at_once(soup: Soup) -> None:
    """The page's pictures and table: the soup's metrics are scikit-learn's on the network's own outputs."""
    metrics = pytest.importorskip("sklearn.metrics")
    from torchvision.models import resnet18  # noqa: PLC0415

    labels = torch.tensor([[0, 1, 1], [1, 0, 0], [0, 0, 1], [1, 1, 0]])
    Path("photos").mkdir()
    for number in range(4):
        picture(f"photos/{number}.png")
    rows = "".join(f"{n},{','.join(map(str, row))}\n" for n, row in enumerate(labels.tolist()))
    Path("photos.csv").write_text(f"image,person,dog,car\n{rows}")
    [recipe, _] = re.findall(
        r"```yaml\n(.*?)^```", (DOCS / "multilabel.md").read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
    Path("soup.yaml").write_text(recipe)
    mean = saved(lambda: resnet18(num_classes=3))
    pixels = [numpy.asarray(Image.open(f"photos/{n}.png"), dtype=numpy.float32) / 255 for n in range(4)]
    batch = torch.from_numpy(numpy.stack(pixels)).permute(0, 3, 1, 2)
    mean_c, std_c = (torch.tensor(v)[:, None, None] for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    with torch.no_grad():
        logits = mean((batch - mean_c) / std_c)
    found = of_soup(soup, "val")
    assert found == of_soup(soup, "two")
    assert found["map"] == pytest.approx(metrics.average_precision_score(labels, logits), abs=1e-6)
    assert found["f1_macro"] == pytest.approx(metrics.f1_score(labels, logits > 0, average="macro", zero_division=0))


def test_segmentation(soup: Soup) -> None:
    """The mean IoU of the soup is scikit-learn's, over the pixels that have a class."""
    metrics = pytest.importorskip("sklearn.metrics")
    from torchvision.models.segmentation import lraspp_mobilenet_v3_large  # noqa: PLC0415

    truths = []
    for folder in ("images", "masks"):
        Path("seg", folder).mkdir(parents=True)
    for number in range(2):
        mask = torch.randint(0, 3, (1, 4, 4)).repeat_interleave(16, 1).repeat_interleave(16, 2)
        mask[:, :4] = 255
        truths.append(mask.flatten())
        picture(f"seg/images/{number}.png")
        Image.fromarray(mask[0].to(torch.uint8).numpy()).save(f"seg/masks/{number}.png")
    evaluate = write("segmentation")["evaluate"]
    mean = saved(lambda: lraspp_mobilenet_v3_large(num_classes=3, weights=None, weights_backbone=None))
    seen: list[torch.Tensor] = []
    mean.register_forward_hook(lambda _m, _i, out: seen.append(out["out"].argmax(1).flatten()))
    with torch.no_grad():
        direct = evaluate(mean, torch.device("cpu"))["miou"]
    truth, predicted = torch.cat(truths), torch.cat(seen)
    known = truth != 255
    assert direct == pytest.approx(metrics.jaccard_score(truth[known], predicted[known], average="macro"), rel=1e-5)
    assert of_soup(soup, "scenes")["miou"] == pytest.approx(direct, abs=0.02)


def test_detection(soup: Soup) -> None:
    """A network of torchvision is scored; boxes of known worth have the average precision that hand and paper give."""
    Path("det").mkdir()
    Path("det/boxes.json").write_text(json.dumps({"a.png": [[0, 0, 10, 10], [20, 20, 30, 30]], "b.png": []}))
    for name in ("a", "b"):
        picture(f"det/{name}.png")
    evaluate = write("detection")["evaluate"]
    boxes = torch.tensor([[0, 0, 10, 9.0], [40, 40, 50, 50], [20, 20, 30, 29]])
    none = {"boxes": torch.zeros(0, 4), "scores": torch.zeros(0)}
    outs = iter([[{"boxes": boxes, "scores": torch.tensor([0.9, 0.8, 0.7])}], [none]])
    # right, wrong, right: precision 1 up to the first of two true boxes, 2/3 up to the second
    assert evaluate(lambda _: next(outs), torch.device("cpu"))["ap50"] == pytest.approx((1 + 2 / 3) / 2)
    from torchvision.models.detection import ssdlite320_mobilenet_v3_large  # noqa: PLC0415

    saved(lambda: ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=2))
    assert 0 <= of_soup(soup, "boxes")["ap50"] <= 1


def test_speech(soup: Soup) -> None:
    """A CTC network of transformers is scored; words that are changed, added and missing are errors."""
    transformers = pytest.importorskip("transformers")
    Path("speech").mkdir()
    with wave.open("speech/a.wav", "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes((numpy.sin(numpy.arange(4_000) / 5) * 9_000).astype(numpy.int16).tobytes())
    Path("speech/dev.jsonl").write_text(json.dumps({"audio": "a.wav", "text": "a cat sat"}) + "\n")
    page = write("speech")
    assert page["errors"](["a", "cat", "sat"], ["a", "bat", "sat", "on"]) == 2
    assert page["errors"](["a", "cat"], []) == 2
    config = transformers.Wav2Vec2Config(
        vocab_size=29,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        conv_dim=(8, 8),
        conv_kernel=(10, 3),
        conv_stride=(5, 2),
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
        num_feat_extract_layers=2,
    )
    for number in range(2):
        torch.manual_seed(number)
        transformers.Wav2Vec2ForCTC(config).save_pretrained(f"runs/{number}")
    assert of_soup(soup, "dev")["wer"] >= 0
