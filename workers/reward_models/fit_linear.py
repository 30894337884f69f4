"""Stage `fit_linear`: reward models that are linear in the embedding, the baseline that any other has to beat.

logistic and bt: the Bradley-Terry model with a linear reward, p = sigmoid(w (x_winner - x_loser)) (Bradley and Terry
1952). logistic and clf: winners against losers, each row by itself. ridge: least squares on the same rows, with targets
1 and -1. scikit-learn solves them in float64.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge

from workers.reward_models.configs import FitLinearConfig
from workers.reward_models.embeddings import open_embeddings
from workers.reward_models.heads import save_linear
from workers.reward_models.metrics import log_loss
from workers.reward_models.pairs import read_pairs

Reals = NDArray[np.float64]


def fit_linear(config: FitLinearConfig, out: Path, *, annotations: Path, embeddings: list[Path]) -> dict[str, float]:
    """Fit weights (d,) and a bias.

    Args:
        config: what to minimise.
        out: receives `reward_model.json` and `linear.npz`.
        annotations: artifact of the annotations.
        embeddings: artifacts of the annotated responses.

    Returns:
        `train_loss`, per row and without the penalty: the binary cross-entropy in nats, or for ridge the squared error.

    Raises:
        ValueError: the annotations are of other embeddings, an embedding is not finite, all embeddings are alike, or
            the solver did not converge.
    """
    source = open_embeddings(embeddings)
    winners, losers = (source.gather(rows).astype(np.float64) for rows in read_pairs(annotations))
    weights, bias, loss = solve(winners, losers, config)
    save_linear(weights, bias, out)
    return {"train_loss": loss}


def solve(winners: Reals, losers: Reals, config: FitLinearConfig) -> tuple[Reals, float, float]:
    """Return weights (d,), bias and train loss, given the features of winners (n, d) and losers (n, d).

    The penalty is on weights of features of standard deviation 1, so that it means the same for every embedding model.
    With bt there is no bias: it would cancel.

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
    biased = config.loss == "clf"
    if config.method == "ridge":
        targets = np.where(wins, 1.0, -1.0)
        model = Ridge(alpha=config.penalty, fit_intercept=biased, solver="cholesky").fit(features, targets)
        loss = float(((model.predict(features) - targets) ** 2).mean())
        slope, intercept = model.coef_, float(model.intercept_)
    else:
        model = LogisticRegression(C=1 / config.penalty, fit_intercept=biased, tol=1e-6, max_iter=2000)
        with warnings.catch_warnings():
            warnings.simplefilter("error", ConvergenceWarning)
            try:
                model.fit(features, wins)
            except ConvergenceWarning as error:
                message = (
                    f"the logistic regression did not converge: raise `penalty` above {config.penalty:g} ({error})"
                )
                raise ValueError(message) from error
        loss = log_loss(model.decision_function(features), wins)
        slope, intercept = model.coef_[0], float(model.intercept_[0])
    weights: Reals = slope / scale
    return weights, intercept - float(weights @ centre) if biased else 0.0, loss


def _standards(rows: Reals) -> tuple[Reals, Reals]:
    """Return the mean and standard deviation (d,) of features (rows, d); a constant feature has deviation 1.

    Raises:
        ValueError: all features are constant.
    """
    scale = rows.std(axis=0)
    if not scale.any():
        raise ValueError("all embeddings of the annotated responses are the same: there is nothing to learn from")
    return rows.mean(axis=0), np.where(scale > 0, scale, 1.0)
