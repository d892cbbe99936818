"""A small language model over characters, trained on Python's own standard library: what benchmarks/decay.py runs.

It trains one network at a constant learning rate, keeps checkpoints on the way, and decays the rate from some of them
on. `build` and `held_out` are what the recipe of the family names. Shapes: B batch, L places, D width, H heads.
"""

from __future__ import annotations

import sysconfig
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

CONTEXT, WIDTH, HEADS, LAYERS, BATCH = 64, 64, 4, 3, 16
CHARACTERS = [*range(32, 127), 10]  # everything else is one more class
BEFORE, EVERY, KEPT, WARMUP, RATE = 1_600, 30, 40, 100, 4e-3
STEPS = BEFORE + EVERY * KEPT
HELD_OUT = 800  # windows of CONTEXT characters
SKIPPED = {"test", "tests", "site-packages", "idlelib", "lib2to3", "turtledemo", "__pycache__"}


class Block(nn.Module):
    """Attention to what came before, then a perceptron, each beside a residual."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.between = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attend, self.join = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.wide, self.narrow = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x_bld: Tensor) -> Tensor:
        """The same shape."""
        b, length, _ = x_bld.shape
        parts = self.attend(self.before(x_bld)).view(b, length, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(parts[0], parts[1], parts[2], is_causal=True)
        x_bld = x_bld + self.join(seen.transpose(1, 2).reshape(b, length, WIDTH))
        added_bld: Tensor = self.narrow(functional.gelu(self.wide(self.between(x_bld))))
        return x_bld + added_bld


class CharGPT(nn.Module):
    """Logits of the next character at each place."""

    def __init__(self) -> None:
        super().__init__()
        classes = len(CHARACTERS) + 1
        self.characters, self.places = nn.Embedding(classes, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, classes, bias=False)

    def forward(self, ids_bl: Tensor) -> Tensor:
        """From int64 [B, L] to [B, L, classes]."""
        x_bld = self.characters(ids_bl) + self.places.weight[: ids_bl.shape[1]]
        for block in self.blocks:
            x_bld = block(x_bld)
        logits: Tensor = self.head(self.norm(x_bld))
        return logits


def build() -> nn.Module:
    """The network of the recipe."""
    return CharGPT()


class LastPlace(CharGPT):
    """Logits of the character after each window alone: a classifier."""

    def forward(self, ids_bl: Tensor) -> Tensor:
        """From int64 [B, L] to [B, classes]."""
        return super().forward(ids_bl)[:, -1]


def build_last() -> nn.Module:
    """The network of benchmarks/experts.py."""
    return LastPlace()


def held_out(model: nn.Module, device: torch.device) -> dict[str, float]:
    """Nats for each of the characters of the held-out files beside this one."""
    windows_nl = load_file(Path(__file__).parent / "held_out.safetensors")["ids"].long().to(device)
    total = torch.zeros((), dtype=torch.float64)
    with torch.inference_mode():
        for ids_bl in windows_nl.split(100):
            total += loss_of(model, ids_bl, reduction="none").double().sum()
    count = windows_nl[:, 1:].numel()
    return {"nll": float(total) / count, "n": count}


def loss_of(model: nn.Module, ids_bl: Tensor, reduction: str = "mean") -> Tensor:
    """Cross-entropy of each character after the first."""
    logits = model(ids_bl[:, :-1])
    return functional.cross_entropy(logits.flatten(0, 1), ids_bl[:, 1:].flatten(), reduction=reduction)


def sources() -> tuple[Tensor, Tensor]:
    """The standard library's characters: of nine of ten files, and of the others."""
    library = Path(sysconfig.get_path("stdlib"))
    files = [file for file in sorted(library.rglob("*.py")) if not SKIPPED & {*file.relative_to(library).parts}]
    return files_of(files)


def files_of(files: Sequence[Path]) -> tuple[Tensor, Tensor]:
    """The characters of nine of ten files, and of the others."""
    return parts_of([file.read_bytes() for file in files])


def parts_of(texts: Sequence[bytes]) -> tuple[Tensor, Tensor]:
    """The classes of the characters of nine of ten texts, and of the others, uint8."""
    table = torch.full((256,), len(CHARACTERS), dtype=torch.uint8)
    table[torch.tensor(CHARACTERS)] = torch.arange(len(CHARACTERS), dtype=torch.uint8)
    parts = [
        b"\n".join(text for number, text in enumerate(texts) if (number % 10 == 0) == other) for other in (False, True)
    ]
    train, other = (table[torch.frombuffer(bytearray(part), dtype=torch.uint8).long()] for part in parts)
    return train, other


def write_held_out(ids: Tensor, folder: Path) -> None:
    """Windows spread over the held-out files, for `held_out`."""
    starts = torch.linspace(0, len(ids) - CONTEXT - 2, HELD_OUT).long()
    save_file(
        {"ids": torch.stack([ids[start : start + CONTEXT + 1] for start in starts])}, folder / "held_out.safetensors"
    )


def batches(ids: Tensor, seed: int, steps: int) -> Iterator[Tensor]:
    """One batch for each step, int64 [B, L + 1]: the same for every run of a seed."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        starts = torch.randint(len(ids) - CONTEXT - 1, (BATCH,), generator=generator)
        yield torch.stack([ids[start : start + CONTEXT + 1] for start in starts]).long()


def train(
    ids: Tensor, seed: int, folder: Path, shapes: dict[str, Callable[[float], float]], windows: list[int]
) -> None:
    """Writes constant/checkpoint-STEP for each of the KEPT checkpoints, and decayed/SHAPE-N for each decay phase.

    A phase begins at the checkpoint that begins the window of the last N, with the optimizer's state there, sees the
    batches of the constant run, and ends where that ends: its rate falls to 0 over the steps between.
    """
    torch.manual_seed(seed)
    model = CharGPT()
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.95), weight_decay=0.1)
    states = {}
    begins = {STEPS - EVERY * (n - 1): n for n in windows}
    for step, batch in enumerate(batches(ids, seed, STEPS), 1):
        _step(model, optimizer, batch, RATE * min(1.0, step / WARMUP))
        if step > BEFORE and (step - BEFORE) % EVERY == 0:
            _write(model, folder / f"constant/checkpoint-{step}")
        if step in begins:
            states[step] = {k: v.clone() for k, v in model.state_dict().items()}, _copied(optimizer)
    for shape, multiplier in shapes.items():
        for begin, (weights, moments) in states.items():
            model.load_state_dict(weights)
            optimizer.load_state_dict(moments)
            for step, batch in enumerate(batches(ids, seed, STEPS), 1):
                if step > begin:
                    _step(model, optimizer, batch, RATE * multiplier((step - begin) / (STEPS - begin)))
            _write(model, folder / f"decayed/{shape}-{begins[begin]}")


def fine_tune(
    start: Path, folder: Path, texts: Sequence[tuple[Tensor, float]], steps: int, rate: float, seed: int
) -> None:
    """Writes a network that is trained from `start` on, on texts by their shares of each batch; the rate falls to 0."""
    model = CharGPT()
    model.load_state_dict(load_file(start / "model.safetensors"))
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.95), weight_decay=0.1)
    generator = torch.Generator().manual_seed(seed)
    shares = torch.tensor([share for _, share in texts])
    for step in range(steps):
        chosen = torch.multinomial(shares, BATCH, replacement=True, generator=generator).tolist()
        places = [int(torch.randint(len(texts[n][0]) - CONTEXT - 1, (), generator=generator)) for n in chosen]
        batch = torch.stack([texts[n][0][at : at + CONTEXT + 1] for n, at in zip(chosen, places, strict=True)])
        _step(model, optimizer, batch.long(), rate * min(1.0, (step + 1) / 10) * (1 - step / steps))
    _write(model, folder)


def _copied(optimizer: torch.optim.Optimizer) -> dict[str, object]:
    found = optimizer.state_dict()
    state = {key: {name: value.clone() for name, value in of.items()} for key, of in found["state"].items()}
    return {"state": state, "param_groups": found["param_groups"]}


def _step(model: nn.Module, optimizer: torch.optim.Optimizer, batch: Tensor, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad()
    loss_of(model, batch).backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()


def _write(model: nn.Module, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.clone() for name, tensor in model.state_dict().items()}, folder / "model.safetensors")
