"""Beliefs: what is kept of a distribution, as bytes, vectors, tokens and text."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxkit.models.local import LocalModel
from ctxkit.testing import tiny_model
from ctxkit.testing.tiny import TINY_TEMPLATE, tiny_counter, tiny_llama, tiny_tokenizer
from ctxkit.tokens import TemplateCounter
from ctxkit_agents.debate.belief import Belief
from ctxkit_agents.debate.table import EmbeddingTable
from ctxkit_agents.debate.vocabulary import Vocabulary, check_same
from ctxkit_agents.errors import TokenizerMismatch

NAME = "00112233445566ff"


def table_of(weight: torch.Tensor) -> EmbeddingTable:
    return EmbeddingTable(weight, Vocabulary(NAME, len(weight)))


def random_table(tokens: int = 300, width: int = 24) -> EmbeddingTable:
    return table_of(torch.randn(tokens, width, generator=torch.Generator().manual_seed(1)))


@st.composite
def beliefs(draw: st.DrawFn, most_id: int = 299) -> Belief:
    one = st.lists(st.integers(0, most_id), min_size=1, max_size=12, unique=True)
    positions = []
    for ids in draw(st.lists(one, max_size=6)):
        weights = draw(st.lists(st.floats(1e-6, 1), min_size=len(ids), max_size=len(ids)))
        positions.append((np.array(ids), np.array(weights) / sum(weights)))
    return Belief.of(positions, NAME, entries=draw(st.integers(1, 8)), mass=draw(st.sampled_from([0.5, 0.99, 1.0])))


@settings(max_examples=60)
@given(beliefs(most_id=70_000))
def test_a_belief_survives_its_bytes_exactly(belief: Belief) -> None:
    again = Belief.from_bytes(belief.to_bytes())
    assert again == belief and hash(again) == hash(belief) and again.vocabulary == NAME
    assert np.array_equal(again.probabilities, belief.probabilities) and again.top_ids == belief.top_ids
    width = 3 if len(belief.ids) and belief.ids.max() > 65_535 else 2
    assert len(belief.to_bytes()) == 17 + (width + 1) * len(belief.ids)


@settings(max_examples=60)
@given(beliefs(), st.data())
def test_bytes_that_are_damaged_are_refused(belief: Belief, data: st.DataObject) -> None:
    whole = belief.to_bytes()
    with pytest.raises(ValueError, match="belief"):
        Belief.from_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(ValueError, match="damaged"):
        Belief.from_bytes(whole + b"\0")
    with pytest.raises(ValueError, match="no belief"):
        Belief.from_bytes(b"{}" + whole[2:])


def test_of_each_position_the_fewest_tokens_with_the_mass_are_kept_likeliest_first() -> None:
    p = np.array([0.05, 0.7, 0.25])
    kept = [Belief.of([(np.array([7, 8, 9]), p)], NAME, mass=mass).ids.tolist() for mass in (0.7, 0.71, 0.95, 0.96)]
    assert kept == [[8], [8, 9], [8, 9], [8, 9, 7]]
    assert Belief.of([(np.array([7, 8, 9]), p)], NAME, entries=2, mass=1.0).ids.tolist() == [8, 9]


def test_the_probabilities_of_a_position_sum_to_one_and_are_near_to_what_was_given() -> None:
    p = np.array([0.6, 0.3, 0.08, 0.02])
    belief = Belief.of([(np.arange(4), p), (np.array([5]), np.array([0.4]))], NAME, mass=1.0)
    assert np.abs(belief.probabilities[:4] - p).max() < 0.004
    assert belief.probabilities[4] == 1 and belief.probabilities[:4].sum() == pytest.approx(1)


@pytest.mark.parametrize("p", [[], [0.0, 0.0], [float("nan"), 0.5], [-0.1, 0.5]])
def test_a_position_without_a_possible_token_is_refused(p: list[float]) -> None:
    with pytest.raises(ValueError, match="above 0"):
        Belief.of([(np.arange(len(p)), np.array(p))], NAME)


@pytest.mark.parametrize("kept", [{"entries": 0}, {"entries": 256}, {"mass": 0.0}, {"mass": 1.1}])
def test_a_belief_that_keeps_nothing_or_too_much_is_refused(kept: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="entries"):
        Belief.of([], NAME, **kept)  # type: ignore[arg-type]


def test_embeddings_are_the_weighted_sum_of_the_kept_rows() -> None:
    table = random_table()
    belief = Belief.of([(np.array([3, 200, 41]), np.array([0.5, 0.3, 0.2])), (np.array([9]), np.array([1.0]))], NAME)
    found = belief.embeddings(table)
    for row, (ids, p) in zip(found, belief.positions(), strict=True):
        wanted = sum(float(chance) * table.weight[int(token)] for token, chance in zip(ids, p, strict=True))
        assert torch.allclose(row, torch.as_tensor(wanted), atol=1e-6)
    assert torch.equal(found[1], table.weight[9])


def test_embeddings_of_nothing_have_the_width_of_the_table() -> None:
    assert Belief.of_ids((), NAME).embeddings(random_table()).shape == (0, 24)
    assert Belief.of_ids((), NAME).decode(random_table()) == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_decoding_finds_the_row_that_a_plain_cosine_finds(dtype: torch.dtype) -> None:
    table = table_of(random_table(tokens=20_000, width=8).weight.to(dtype))  # more rows than one chunk has
    table.weight[17] = 0  # an empty row is nobody's neighbour
    p = np.random.default_rng(0).dirichlet(np.ones(5), 40)
    ids = np.random.default_rng(1).integers(0, 20_000, (40, 5))
    belief = Belief.of(zip(ids, p, strict=True), NAME, mass=1.0)
    rows = table.weight.float()
    cosines = torch.nn.functional.cosine_similarity(belief.embeddings(table)[:, None], rows[None], dim=-1, eps=1e-12)
    assert belief.decode(table) == [int(token) for token in cosines.argmax(-1)]


def test_certain_tokens_decode_to_themselves() -> None:
    assert Belief.of_ids([5, 0, 5, 299], NAME).decode(random_table()) == [5, 0, 5, 299]


@pytest.mark.parametrize("sharp", [True, False])
def test_the_average_of_a_whole_distribution_is_exact_to_a_millionth(sharp: bool) -> None:
    table = random_table(tokens=10_000)
    logits = torch.randn(10_000, generator=torch.Generator().manual_seed(2)) * (20 if sharp else 1)
    p = logits.softmax(-1)
    assert torch.allclose(table.average(p), p @ table.weight, atol=2e-5)


def test_the_last_positions_are_a_belief_of_their_own() -> None:
    first, second = (np.array([3, 4]), np.array([0.6, 0.4])), (np.array([5]), np.array([1.0]))
    both = Belief.of([first, second], NAME)
    assert both.last(1) == Belief.of([second], NAME) and both.last(7) == both
    assert both.last(0).tokens == 0 and Belief.joined([Belief.of([first], NAME), both.last(1)], NAME) == both


def test_text_shows_the_alternatives_where_no_token_is_sure() -> None:
    counter = tiny_counter()
    vocabulary = Vocabulary.of(counter.tokenizer).fingerprint
    six, nine, ten = (counter.tokenizer.encode(text).ids[0] for text in "691")
    is_ = counter.tokenizer.encode("is ").ids
    certain = [(np.array([token]), np.array([1.0])) for token in is_]
    belief = Belief.of([*certain, (np.array([six, nine, ten]), np.array([0.6, 0.3, 0.1]))], vocabulary)
    assert belief.to_text(counter) == "is 6|9 (.6/.3)"
    assert belief.to_text(counter, alternatives=3) == "is 6|9|1 (.6/.3/.1)"
    assert belief.to_text(counter, sharp=0.5) == belief.to_text(counter, alternatives=1) == "is 6"
    assert Belief.of_ids((), vocabulary).to_text(counter) == ""


def test_a_reader_of_another_vocabulary_is_told_so() -> None:
    belief = Belief.of_ids([1, 2], NAME)
    other = EmbeddingTable(torch.ones(5, 2), Vocabulary("ff" * 8, 5), name="other")
    with pytest.raises(TokenizerMismatch, match="'other' has ffff"):
        belief.embeddings(other)
    with pytest.raises(TokenizerMismatch):
        belief.decode(other)
    with pytest.raises(TokenizerMismatch):
        belief.to_text(tiny_counter())


def test_a_token_without_an_embedding_is_refused_and_never_said() -> None:
    with pytest.raises(TokenizerMismatch, match="names the token 300"):
        Belief.of_ids([5, 300], NAME).embeddings(random_table())
    more = tiny_tokenizer()
    more.add_tokens(["<zebra>"])
    model = LocalModel(tiny_llama(), TemplateCounter(more, TINY_TEMPLATE))
    assert len(EmbeddingTable.of(model).weight) == Vocabulary.of(more).size - 1


def test_two_tokenizers_are_the_same_where_every_token_has_the_same_number() -> None:
    changed = tiny_tokenizer()
    changed.add_tokens(["<zebra>"])
    check_same("a", tiny_tokenizer(), "b", tiny_tokenizer())
    assert Vocabulary.of(tiny_tokenizer()) == Vocabulary.of(tiny_tokenizer()) != Vocabulary.of(changed)
    with pytest.raises(TokenizerMismatch, match=r"1 of their tokens .*'<zebra>' is unknown and \d+"):
        check_same("a", tiny_tokenizer(), "b", changed)


def test_a_table_of_a_model_has_its_rows_and_leaves_padding_out() -> None:
    model = tiny_model()
    table = EmbeddingTable.of(model)
    assert torch.equal(table.rows([4, 9]), model.model.get_input_embeddings().weight[[4, 9]])
    padded = EmbeddingTable(torch.cat([table.weight, table.weight[:4]]), table.vocabulary)
    assert len(padded.weight) == table.vocabulary.size
    with pytest.raises(ValueError, match="tokens or more"):
        EmbeddingTable(table.weight[:10], table.vocabulary)


def test_a_table_whose_model_scales_its_embeddings_is_scaled() -> None:
    class Scaled(torch.nn.Embedding):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return super().forward(input) * 8

    model = tiny_model()
    weight = model.model.get_input_embeddings().weight.detach().clone()
    model.model.set_input_embeddings(Scaled.from_pretrained(weight))
    assert torch.equal(EmbeddingTable.of(model).rows([3]), weight[[3]] * 8)
