"""The training loop of MLP reward models against the released procedure taken literally."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mlp_fits import config, pairs_of
from reward_artifacts import linear_world
from sklearn.model_selection import train_test_split

from workers.reward_models.configs import FitMlpConfig
from workers.reward_models.fit_mlp import (
    epoch_batches,
    initial_network,
    mirror,
    should_stop,
    split_rows,
    steps_per_epoch,
    train,
)
from workers.seeding import derive_seed, generator


def literal_paper_training(
    features: torch.Tensor, winner: np.ndarray, loser: np.ndarray, setting: FitMlpConfig
) -> tuple[torch.nn.Module, int, int, float]:
    """`step5_train_rms.py` and `networks.py`, whole pairs copied, with the declared seeds in place of global ones."""
    positive, negative = features[winner], features[loser]
    if setting.loss == "bt":
        rows = torch.cat([torch.stack([positive, negative], 1), torch.stack([negative, positive], 1)])
    else:
        rows = torch.cat([positive, negative])
    labels = torch.cat([torch.ones(len(winner)), torch.zeros(len(loser))]).to(features.dtype)
    shuffled = generator(setting.seed, "fit_mlp/shuffle").permutation(len(rows))
    rows, labels = rows[shuffled], labels[shuffled]
    x_train, x_test, y_train, y_test = (
        torch.from_numpy(part)
        for part in train_test_split(
            rows.numpy(), labels.numpy(), test_size=setting.validation, random_state=42 + setting.member
        )
    )
    torch.manual_seed(derive_seed(setting.seed, f"fit_mlp/weights/{setting.member}"))
    model = torch.nn.Sequential(
        torch.nn.Linear(features.shape[1], setting.hidden[0]),
        torch.nn.ReLU(),
        torch.nn.Linear(*setting.hidden),
        torch.nn.ReLU(),
        torch.nn.Linear(setting.hidden[1], 1),
    ).to(features.dtype)

    def forward(x: torch.Tensor) -> torch.Tensor:
        if setting.loss == "bt":
            return torch.sigmoid(model(x[:, 0]) - model(x[:, 1])).squeeze(-1)
        return torch.sigmoid(model(x)).squeeze(-1)

    random = torch.Generator().manual_seed(derive_seed(setting.seed, f"fit_mlp/batches/{setting.member}"))
    criterion, optimizer = torch.nn.BCELoss(), torch.optim.Adam(model.parameters(), lr=setting.learning_rate)
    batch_size = min(setting.batch_size, len(x_train))
    validation: list[float] = []
    steps = 0
    for _ in range(setting.epochs):
        for _ in range(0, len(x_train), batch_size):
            index = torch.randperm(len(x_train), generator=random)[:batch_size]
            optimizer.zero_grad()
            criterion(forward(x_train[index]), y_train[index]).backward()
            optimizer.step()
            steps += 1
        with torch.no_grad():
            validation.append(float(criterion(forward(x_test), y_test)))
        if len(validation) > setting.patience and all(
            validation[-1] > loss for loss in validation[-(setting.patience + 1) : -1]
        ):
            break
    return model, len(validation), steps, validation[-1]


@pytest.mark.parametrize("loss", ["bt", "clf"])
@pytest.mark.parametrize("member", [0, 1])
@pytest.mark.parametrize(("annotations", "batch_size"), [(100, 10_240), (130, 64), (130, 20)])
def test_paper_training_gives_the_weights_of_the_released_procedure(
    loss: str, member: int, annotations: int, batch_size: int
) -> None:
    # In float64, since Adam turns a gradient that is zero but for rounding (the output bias of Bradley-Terry, a nearly
    # dead unit) into full steps of either sign: in float32 the same procedure summed in another order drifts by 1e-3.
    embeddings, rewards = linear_world(30, 4, 12)
    features = torch.from_numpy(embeddings.reshape(-1, 12)).double()
    winner, loser = pairs_of(annotations, rewards)
    setting = config(loss=loss, member=member, batch_size=batch_size)
    expected, epochs, steps, validation = literal_paper_training(features, winner, loser, setting)
    network = initial_network(12, setting).double()
    training = train(network, features, mirror(winner, loser, loss), setting)
    assert (training.epochs, training.steps) == (epochs, steps)
    assert training.validation_loss == pytest.approx(validation, abs=1e-9)
    for fast, slow in zip(network.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(fast, slow, rtol=0, atol=1e-9)


def test_paper_training_stops_where_the_released_procedure_does() -> None:
    embeddings, rewards = linear_world(40, 2, 12)
    features = torch.from_numpy(embeddings.reshape(-1, 12))
    winner, loser = pairs_of(40, np.random.default_rng(0).permutation(rewards))  # labels of other responses: noise
    setting = config(loss="clf", epochs=60, hidden=(64, 32))
    _, epochs, steps, validation = literal_paper_training(features, winner, loser, setting)
    training = train(initial_network(12, setting), features, mirror(winner, loser, "clf"), setting)
    assert 4 <= training.epochs < 60
    assert (training.epochs, training.steps) == (epochs, steps)
    assert training.validation_loss == pytest.approx(validation, rel=1e-3)


@given(
    annotations=st.integers(1, 300),
    member=st.integers(0, 5),
    seed=st.integers(0, 99),
    validation=st.sampled_from([0.1, 0.2, 0.25, 1 / 3]),
)
@settings(deadline=None)
def test_the_papers_split_is_scikit_learns_of_the_shuffled_mirrored_rows(
    annotations: int, member: int, seed: int, validation: float
) -> None:
    setting = config(member=member, seed=seed, validation=validation)
    shuffled = generator(seed, "fit_mlp/shuffle").permutation(2 * annotations)
    expected = train_test_split(shuffled, test_size=validation, random_state=42 + member)
    for ours, theirs in zip(split_rows(annotations, setting), expected, strict=True):
        assert np.array_equal(ours, theirs)


@given(annotations=st.integers(2, 300), seed=st.integers(0, 99))
def test_the_clean_split_keeps_twins_together_and_loses_no_row(annotations: int, seed: int) -> None:
    train_rows, validation_rows = split_rows(annotations, config(training="clean", seed=seed))
    assert sorted([*train_rows, *validation_rows]) == list(range(2 * annotations))
    assert len(validation_rows) == 2 * math.ceil(0.2 * annotations)
    assert set(train_rows % annotations).isdisjoint(validation_rows % annotations)


@pytest.mark.parametrize("training", ["paper", "clean"])
def test_too_few_annotations_to_split_are_refused_with_a_remedy(training: str) -> None:
    with pytest.raises(ValueError, match="leave nothing to train on: use more annotations or a smaller validation"):
        split_rows(1, config(training=training, validation=0.6))


@given(rows=st.integers(1, 200), batch_size=st.integers(1, 80))
@settings(deadline=None)
def test_paper_batches_are_fresh_subsets_without_repetition(rows: int, batch_size: int) -> None:
    random = torch.Generator().manual_seed(0)
    batches = list(epoch_batches(rows, config(batch_size=batch_size), random))
    assert len(batches) == math.ceil(rows / batch_size)
    for batch in batches:
        assert len(batch) == min(batch_size, rows) == len(set(batch.tolist()))


def test_paper_batches_are_not_a_partition_and_differ_between_epochs() -> None:
    random = torch.Generator().manual_seed(0)
    setting = config(batch_size=60)
    one, other = (torch.cat(list(epoch_batches(200, setting, random))) for _ in range(2))
    assert len(set(one.tolist())) < 200
    assert one.tolist() != other.tolist()


@given(rows=st.integers(1, 200), batch_size=st.integers(1, 80))
@settings(deadline=None)
def test_clean_batches_are_a_partition_into_nearly_equal_parts(rows: int, batch_size: int) -> None:
    batches = list(
        epoch_batches(rows, config(training="clean", batch_size=batch_size), torch.Generator().manual_seed(0))
    )
    sizes = [len(batch) for batch in batches]
    assert len(batches) == steps_per_epoch(rows, batch_size)
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 1
    assert sorted(torch.cat(batches).tolist()) == list(range(rows))


def test_paper_training_stops_when_the_loss_exceeds_each_of_the_previous_three() -> None:
    setting = config()
    assert not should_stop([1.0, 2.0, 3.0], setting)  # only two before it
    assert should_stop([1.0, 1.0, 1.0, 1.1], setting)
    assert not should_stop([1.0, 1.0, 1.1, 1.1], setting)  # equal is not above
    assert should_stop([9.0, 1.0, 2.0, 3.0, 4.0], setting)
    assert not should_stop([1.0, 9.0, 8.0, 7.0, 6.0], setting)  # worse than the best, yet falling


def test_clean_training_stops_when_the_best_loss_is_three_epochs_old() -> None:
    setting = config(training="clean")
    assert not should_stop([1.0, 2.0, 3.0], setting)
    assert should_stop([1.0, 2.0, 3.0, 2.0], setting)
    assert should_stop([1.0, 1.0, 1.0, 1.0], setting)  # equal is no improvement
    assert not should_stop([4.0, 3.0, 2.0, 1.0], setting)


def test_every_annotation_is_mirrored_for_bradley_terry_and_broken_up_for_classification() -> None:
    winner, loser = np.array([7, 5]), np.array([1, 2])
    assert mirror(winner, loser, "bt").responses.tolist() == [[7, 1], [5, 2], [1, 7], [2, 5]]
    assert mirror(winner, loser, "clf").responses.tolist() == [[7], [5], [1], [2]]
    assert mirror(winner, loser, "bt").labels.tolist() == mirror(winner, loser, "clf").labels.tolist() == [1, 1, 0, 0]


def test_initial_weights_depend_on_seed_and_member_only_and_leave_torchs_generator_alone() -> None:
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    one = initial_network(12, config())
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(1)
    same = initial_network(12, config(loss="clf", training="clean", epochs=1))
    assert torch.equal(one[0].weight, same[0].weight)
    assert not torch.equal(one[0].weight, initial_network(12, config(seed=4))[0].weight)
    assert not torch.equal(one[0].weight, initial_network(12, config(member=1))[0].weight)


def test_clean_training_keeps_the_best_weights_and_reports_their_loss() -> None:
    embeddings, rewards = linear_world(60, 2, 12)
    features = torch.from_numpy(embeddings.reshape(-1, 12))
    winner, loser = pairs_of(60, np.random.default_rng(0).permutation(rewards))  # noise: it soon overfits
    setting = config(training="clean", epochs=60, hidden=(64, 32), loss="clf")
    examples = mirror(winner, loser, "clf")
    network = initial_network(12, setting)
    training = train(network, features, examples, setting)
    assert 4 <= training.epochs < 60
    rows = torch.from_numpy(split_rows(60, setting)[1])
    logits = network(features[examples.responses[rows, 0]]).squeeze(-1)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, examples.labels[rows]).item()
    assert training.validation_loss == pytest.approx(loss, abs=1e-6)
    # Ending at the best epoch gives the very same weights.
    shorter = initial_network(12, setting)
    train(shorter, features, examples, setting.model_copy(update={"epochs": training.epochs - setting.patience}))
    assert torch.equal(shorter[0].weight, network[0].weight)


def test_a_training_that_diverges_is_an_error() -> None:
    features = torch.full((8, 3), 1e38)
    with pytest.raises(ValueError, match="training diverged in epoch 1"):
        train(
            initial_network(3, config(learning_rate=1e30)),
            features,
            mirror(np.arange(4), np.arange(4, 8), "clf"),
            config(loss="clf", learning_rate=1e30),
        )


@pytest.mark.parametrize("loss", ["bt", "clf"])
def test_training_with_factors_in_bfloat16_ends_near_that_in_float32(loss: str) -> None:
    # Whatever the hardware: at this size it does not matter how slow it is.
    embeddings, rewards = linear_world(200, 4, 12)
    winner, loser = pairs_of(600, rewards)
    setting = config(loss=loss, epochs=30)
    exact, rounded = (
        train(
            initial_network(12, setting),
            torch.from_numpy(embeddings.reshape(-1, 12)).to(dtype),
            mirror(winner, loser, loss),
            setting,
        )
        for dtype in (torch.float32, torch.bfloat16)
    )
    assert exact != rounded
    assert rounded.validation_loss == pytest.approx(exact.validation_loss, abs=0.03)


@pytest.mark.parametrize("loss", ["bt", "clf"])
def test_the_written_out_gradient_is_autograds(loss: str) -> None:
    from workers.reward_models.mlp import Batch, Mlp

    embeddings, rewards = linear_world(30, 4, 12)
    features = torch.from_numpy(embeddings.reshape(-1, 12)).double()
    winner, loser = pairs_of(50, rewards)
    examples = mirror(np.append(winner, winner[:7]), np.append(loser, loser[:7]), loss)  # some come twice
    network = initial_network(12, config(hidden=(9, 7, 5))).double()
    mlp = Mlp(network, 1e-2, len(features), torch.float64)
    batch = Batch(examples.responses, examples.labels, len(features), features.device)
    logits = network(features)[examples.responses].squeeze(-1)
    logits = logits[:, 0] - logits[:, 1] if loss == "bt" else logits[:, 0]
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, examples.labels.double())
    expected.backward()
    assert float(mlp.step(features, batch)) == pytest.approx(expected.item(), abs=1e-12)
    gradient = torch.cat([parameter.grad.reshape(-1) for parameter in network.parameters()])
    torch.testing.assert_close(mlp.gradient, gradient, rtol=0, atol=1e-12)
