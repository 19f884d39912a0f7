"""Training of the head: a small network over spans, an ensemble of seeds folded into one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from passages import Passage
from torch import Tensor, nn
from torch.nn import functional

from ctxkit.compression.facts.head import KeepHead


@dataclass(frozen=True)
class Recipe:
    """What was chosen on the development articles; MODEL_CARD.md says what was not."""

    layer: int = 3
    window: int = 256
    longest: int = 10
    hidden: int = 32
    seeds: int = 4
    epochs: int = 14
    batch: int = 12
    rate: float = 4e-3
    decay: float = 0.05
    input_dropout: float = 0.25
    dropout: float = 0.5


class Network(nn.Module):
    """Logits of all spans that begin at each word, [words, longest]."""

    def __init__(self, inputs: int, recipe: Recipe) -> None:
        super().__init__()
        self.recipe = recipe
        self.inner = nn.Linear(inputs, recipe.hidden)
        self.outer = nn.Linear(recipe.hidden, 3)
        self.length = nn.Parameter(torch.full((recipe.longest,), -4.0))

    def forward(self, inputs: Tensor) -> Tensor:
        seen = functional.dropout(inputs, self.recipe.input_dropout, self.training)
        hidden = functional.dropout(torch.relu(self.inner(seen)), self.recipe.dropout, self.training)
        first, last, inside = self.outer(hidden).unbind(-1)  # [words]
        sums, words = functional.pad(inside.cumsum(0), (1, 0)), len(first)
        columns = []
        for k, weight in enumerate(length_weights(self.recipe.longest)):
            within = (sums[k + 1 :] - sums[: words - k]) * float(weight)
            columns.append(functional.pad(first[: words - k] + last[k:] + within + self.length[k], (0, k)))
        return torch.stack(columns, -1)


def length_weights(longest: int) -> np.ndarray:
    return (1 / np.sqrt(np.arange(1, longest + 1))).astype(np.float32)


@dataclass(frozen=True)
class Example:
    """inputs [words + longest, dims], the last ones 0; targets and real [words + longest, longest]."""

    inputs: Tensor
    targets: Tensor
    real: Tensor


def train(passages: Sequence[Passage], recipe: Recipe, encoder: str) -> KeepHead:
    """A head whose logits are the mean of `recipe.seeds` networks': side by side they are one network."""
    inputs = [np.hstack([p.states, p.shapes]) for p in passages]
    every = np.concatenate(inputs)
    mean, deviation = every.mean(0), every.std(0) + 1e-3
    examples = [_example(p, (x - mean) / deviation, recipe) for p, x in zip(passages, inputs, strict=True)]
    networks = [_trained(examples, recipe, seed) for seed in range(recipe.seeds)]
    folded = _folded(networks, mean, deviation)
    return KeepHead(folded, (recipe.layer,), passages[0].states.shape[1], recipe.window, encoder)


def _example(passage: Passage, inputs: np.ndarray, recipe: Recipe) -> Example:
    words, longest = len(inputs), recipe.longest
    targets = torch.zeros(words + longest, longest)
    for places in passage.spans():
        for first, last in places:
            targets[first, min(last - first, longest - 1)] += 1 / len(places)
    real = torch.arange(words + longest)[:, None] + torch.arange(longest) < words
    padded = torch.from_numpy(np.pad(inputs, ((0, longest), (0, 0))).astype(np.float32))
    return Example(padded, targets.clamp(max=1), real)


def _trained(examples: Sequence[Example], recipe: Recipe, seed: int) -> Network:
    torch.manual_seed(seed)
    network = Network(examples[0].inputs.shape[1], recipe)
    optimiser = torch.optim.Adam(network.parameters(), lr=recipe.rate)
    steps = recipe.epochs * -(-len(examples) // recipe.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.rate, steps, pct_start=0.2)
    for _ in range(recipe.epochs):
        order = torch.randperm(len(examples)).tolist()
        for start in range(0, len(order), recipe.batch):
            batch = [examples[i] for i in order[start : start + recipe.batch]]
            optimiser.zero_grad()
            _loss(network, batch).backward()
            optimiser.step()
            schedule.step()
    return network.eval()


def _loss(network: Network, batch: Sequence[Example]) -> Tensor:
    """Cross entropy of all spans, summed over a passage: one span in 300 is an answer, and no balancing helps."""
    real = torch.cat([example.real for example in batch])
    logits = network(torch.cat([example.inputs for example in batch]))[real]
    targets = torch.cat([example.targets for example in batch])[real]
    entropy = functional.binary_cross_entropy_with_logits(logits, targets, reduction="sum") / len(batch)
    size = network.inner.weight.square().sum() + network.outer.weight.square().sum()
    return entropy + network.recipe.decay * size


def _folded(networks: Sequence[Network], mean: np.ndarray, deviation: np.ndarray) -> dict[str, np.ndarray]:
    """Weights of the mean of the networks' logits, on inputs that are not standardised."""

    def arrays(name: str) -> list[np.ndarray]:
        return [network.state_dict()[name].numpy().astype(np.float64) for network in networks]

    inner = np.concatenate([weight.T for weight in arrays("inner.weight")], 1) / deviation[:, None]
    return {
        "inner.weight": inner.astype(np.float32),
        "inner.bias": (np.concatenate(arrays("inner.bias")) - mean @ inner).astype(np.float32),
        "outer.weight": (np.concatenate([w.T for w in arrays("outer.weight")]) / len(networks)).astype(np.float32),
        "outer.bias": np.mean(arrays("outer.bias"), 0).astype(np.float32),
        "length.bias": np.mean(arrays("length"), 0).astype(np.float32),
        "length.weight": length_weights(networks[0].recipe.longest),
    }
