"""Relevance: how likely a hit is the passage that holds the answer.

Over scores, relevance is a softmax: `exp(b * score / best score)`, divided by the sum over all that was ranked.
It is the probability of being THE passage: one clear winner gets nearly all of it, near-equal passages share it, and
the relevances of one search sum to 1. Fused ranks carry no margin, so over them the measured share per rank is used.

Measured on xquad-en (240 passages, 1,190 questions, one gold passage each, all-MiniLM-L6-v2) by
`benchmarks/retrieval_quality.py`; `b` has the least log-loss:

    method              b      on either half   log-loss
    hybrid, by scores   16.5   16.0 / 17.0      0.152      (0.245 for the mean share of each rank instead)
    dense               15.0   15.5 / 14.5      0.408      (0.532)
    lexical             11.0   11.0 / 11.5      0.194
    dense, MaxSim       31.0   31.0 / 31.0      0.103      (one vector per token; 0.217 with b = 15)
    hybrid, MaxSim      19.0   18.0 / 19.0      0.120      (0.123 with the 16.5 of hybrid by scores, which it gets)
    hybrid, by ranks    share per rank: 0.933, 0.046, 0.009, then about 0.015 / rank ** 1.6

For hybrid by scores, hits said to be right with 0.40-0.60, 0.60-0.80, 0.80-0.95 and above 0.95 were right in 0.52,
0.66, 0.85 and 1.00 of the cases. The figures hold for questions that the index can answer, with one passage each. A
question it cannot answer gets a confident first hit too. On cranfield, where queries have several relevant passages,
the numbers are no probabilities: above 0.6 relevance was right in about 0.2 of the cases, around 0.5 in 0.52, around
0.1 in 0.36.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import numpy as np

from ctxkit.retrieval.fusion import Run

SHARPNESS: Mapping[str, float] = {"scores": 16.5, "dense": 15.0, "maxsim": 31.0, "lexical": 11.0}

_FIRST_RANKS = (0.933, 0.046, 0.009)
_STRICT = 1.0 - 1e-6


def relevances(run: Run, kind: str) -> list[float]:
    """One probability per hit of `run`, in (0, 1), strictly falling; ties fall by a millionth.

    kind: what the scores of `run` are: "scores" (ScoreFusion), "dense" (one vector per text), "maxsim" (one per token),
        "lexical", or anything else for ranks.
    """
    if not len(run):
        return []
    shares = _softmax(run.scores, SHARPNESS[kind]) if kind in SHARPNESS else _by_rank(len(run))
    return _strictly_falling(np.clip(shares, 1e-12, 0.9999).tolist())


def _softmax(scores: np.ndarray, sharpness: float) -> np.ndarray:
    top = float(scores[0])
    if top <= 0:  # nothing is similar: nothing to tell the hits apart by
        return np.full(len(scores), 1.0 / (len(scores) + 1))
    weights = np.exp(sharpness * (scores / top - 1.0))
    return weights / weights.sum()


def _by_rank(hits: int) -> np.ndarray:
    ranks = np.arange(1, hits + 1)
    shares = 0.015 / ranks**1.6
    shares[: len(_FIRST_RANKS)] = _FIRST_RANKS[:hits]
    return shares


def _strictly_falling(values: list[float]) -> list[float]:
    falling = values[:1]
    for _, value in pairwise(values):
        falling.append(min(value, falling[-1] * _STRICT))
    return falling
