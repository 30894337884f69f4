"""Stage `fit_linear`: reward models that are linear in the embedding, the floor that any other has to beat.

logistic and bt: the Bradley-Terry model with a linear reward, p = sigmoid(w (x_winner - x_loser)) (Bradley and Terry
1952). logistic and clf: winners against losers, each row by itself. ridge: least squares on the same rows, with targets
1 and -1. Solved by scikit-learn in float64.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge

from workers.reward_models.configs import FitLinearConfig
from workers.reward_models.embeddings import open_embeddings, read_pairs
from workers.reward_models.heads import save_linear

Reals = NDArray[np.float64]


def fit_linear(config: FitLinearConfig, out: Path, *, annotations: Path, embeddings: list[Path]) -> dict[str, float]:
    """Write a reward_model folder: weights (d,) and a bias.

    Metrics: `train_loss`, per row and without the penalty: the binary cross-entropy in nats, or for ridge the squared
    error.

    Raises:
        ValueError: annotations of other embeddings, an embedding that is not finite, embeddings that are all alike, or
            a solver that did not converge.
    """
    winner, loser = read_pairs(annotations)
    source = open_embeddings(embeddings)
    winners, losers = (source.gather(rows).astype(np.float64) for rows in (winner, loser))
    weights, bias, loss = solve(winners, losers, config)
    save_linear(weights, bias, out)
    return {"train_loss": loss}


def solve(winners: Reals, losers: Reals, config: FitLinearConfig) -> tuple[Reals, float, float]:
    """Weights (d,), bias and train loss from the features of winners (n, d) and losers (n, d).

    The penalty is on weights of features of deviation 1, so that it means the same for every embedding model. With bt
    there is no bias: it would cancel.

    Raises:
        ValueError: no feature differs between rows, or the solver did not converge.
    """
    centre, scale = _standards(np.concatenate([winners, losers]))
    if config.loss == "bt":
        differences = (winners - losers) / scale
        features = np.concatenate([differences, -differences])
    else:
        features = (np.concatenate([winners, losers]) - centre) / scale
    wins = np.repeat([True, False], len(winners))
    bare = config.loss == "bt"
    if config.method == "ridge":
        model = Ridge(alpha=config.penalty, fit_intercept=not bare, solver="cholesky")
        model.fit(features, np.where(wins, 1.0, -1.0))
        loss = float(((model.predict(features) - np.where(wins, 1.0, -1.0)) ** 2).mean())
        slope, intercept = model.coef_, 0.0 if bare else float(model.intercept_)
    else:
        model = LogisticRegression(C=1 / config.penalty, fit_intercept=not bare, tol=1e-6, max_iter=2000)
        with warnings.catch_warnings():
            warnings.simplefilter("error", ConvergenceWarning)
            try:
                model.fit(features, wins)
            except ConvergenceWarning as error:
                message = (
                    f"the logistic regression did not converge: raise `penalty` above {config.penalty:g} ({error})"
                )
                raise ValueError(message) from error
        margins = model.decision_function(features)
        loss = float(np.logaddexp(0.0, np.where(wins, -margins, margins)).mean())
        slope, intercept = model.coef_[0], 0.0 if bare else float(model.intercept_[0])
    weights: Reals = slope / scale
    return weights, float(intercept - (0.0 if bare else weights @ centre)), loss


def _standards(rows: Reals) -> tuple[Reals, Reals]:
    """Mean and deviation of each feature; a feature that never changes is left as it is."""
    scale = rows.std(axis=0)
    if not scale.any():
        raise ValueError("all embeddings of the annotated responses are the same: there is nothing to learn from")
    return rows.mean(axis=0), np.where(scale > 0, scale, 1.0)
