"""Tokens drawn from the nucleus of a distribution (top-p sampling, Holtzman et al. 2020, arXiv 1904.09751)."""

from __future__ import annotations

import torch

#: So many of the likeliest tokens are sorted first; a nucleus is seldom larger.
_HEAD = 1024


def draw(share: torch.Tensor, uniforms: torch.Tensor, top_p: float) -> torch.Tensor:
    """Draw a token from the nucleus of each distribution, by inversion of its cumulative shares.

    The nucleus is the shortest head of the tokens, the likeliest first and of equal ones the lowest, that has at least
    `top_p`. It is found among the 1,024 likeliest where it lies within; else all tokens are sorted. The token is the
    same.

    Args:
        share: probabilities, float32 of shape (rows, vocabulary).
        uniforms: in [0, 1), of shape (rows, 1).
        top_p: in (0, 1].

    Returns:
        Tokens, int64 of shape (rows, 1).
    """
    if share.shape[1] <= _HEAD:
        return _drawn_of_all(share, uniforms, top_p)
    # By number before by share, so that equal ones stand as in a stable sort of all.
    order = share.topk(_HEAD, dim=-1, sorted=False).indices.sort(dim=-1).values
    head, by_share = share.gather(-1, order).sort(dim=-1, descending=True, stable=True)
    order = order.gather(-1, by_share)
    token, last = _drawn(head, order, uniforms, top_p)
    # Of tokens as likely as the least of the head others may be left out.
    whole = (head.gather(-1, last) > head[:, -1:])[:, 0]
    if not whole.all():
        rest = ~whole
        token[rest] = _drawn_of_all(share[rest], uniforms[rest], top_p)
    return token


def _drawn_of_all(share: torch.Tensor, uniforms: torch.Tensor, top_p: float) -> torch.Tensor:
    ordered, order = share.sort(dim=-1, descending=True, stable=True)
    return _drawn(ordered, order, uniforms, top_p)[0]


def _drawn(
    share: torch.Tensor, order: torch.Tensor, uniforms: torch.Tensor, top_p: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the drawn tokens, and the places of the last tokens of the nuclei, given shares in descending order."""
    total = share.cumsum(-1)
    # Tokens that have less than top_p before them.
    last = ((total - share) < top_p).sum(-1, keepdim=True).clamp(min=1) - 1
    drawn = uniforms * total.gather(-1, last)
    return order.gather(-1, torch.minimum(torch.searchsorted(total, drawn, right=True), last)), last
