"""One MLP in training, at the speed of its matrix products.

The gradient of so small a graph is written out instead of recorded, and every large matrix lies in a buffer that is
allocated once: autograd, and allocating in every step, cost a tenth of a step and more
(`orchestrator/decisions/0010-together-and-bit-for-bit-alone.md`). Networks of a bundle are trained one after another
(on a GPU side by side) and never share an operation, so each is the same bit for bit whatever else is in the bundle.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.optim.adam import adam


class Batch:
    """The distinct responses of some examples: twins and repetitions go through the network once."""

    def __init__(self, responses: torch.Tensor, labels: torch.Tensor, count: int, device: torch.device) -> None:
        """Find the distinct responses.

        Args:
            responses: (b, 1) or (b, 2), int64, on the CPU: rows of the features. The logit of a pair is
                f(first) - f(second).
            labels: (b,), float, on the CPU.
            count: number of rows of the features.
            device: where the network is.
        """
        used = torch.zeros(count, dtype=torch.bool)
        used[responses.reshape(-1)] = True
        place = used.cumsum(0)
        self.distinct = used.nonzero().squeeze(1).to(device, non_blocking=True)
        """(u,): rows of the features, ascending."""
        self.place = (place[responses] - 1).to(device, non_blocking=True)
        """Like `responses`, but into `distinct`."""
        self.labels = labels.to(device, non_blocking=True)

    def __len__(self) -> int:
        return len(self.labels)

    def loss(self, rewards: torch.Tensor) -> torch.Tensor:
        """Return the mean binary cross-entropy (scalar), in nats, given the rewards (u,) of `distinct`."""
        return binary_cross_entropy_with_logits(self._logits(rewards), self.labels.to(rewards))

    def slope(self, rewards: torch.Tensor) -> torch.Tensor:
        """Return the derivative of `loss` by each reward (u,)."""
        by_logit = (torch.sigmoid(self._logits(rewards)) - self.labels.to(rewards)) / len(self)
        slope = torch.zeros_like(rewards)
        # Unlike index_add_, deterministic on a GPU.
        slope.index_put_((self.place[:, 0],), by_logit, accumulate=True)
        if self.place.shape[1] == 2:
            slope.index_put_((self.place[:, 1],), -by_logit, accumulate=True)
        return slope

    def _logits(self, rewards: torch.Tensor) -> torch.Tensor:
        given = rewards[self.place]
        return given[:, 0] - given[:, 1] if given.shape[1] == 2 else given[:, 0]


class Adam:
    """Adam (arXiv 1412.6980) with the defaults of `torch.optim.Adam`, on one vector.

    That class would import torch's compiler: a second and 68 MiB.
    """

    def __init__(self, parameters: torch.Tensor, learning_rate: float) -> None:
        self._parameters = parameters
        self._learning_rate = learning_rate
        self._mean, self._square = torch.zeros_like(parameters), torch.zeros_like(parameters)
        self._steps = torch.zeros((), device=parameters.device)

    def step(self, gradient: torch.Tensor) -> None:
        """Take one step along a gradient."""
        adam(
            [self._parameters], [gradient], [self._mean], [self._square], [], [self._steps],
            fused=True, amsgrad=False, maximize=False, lr=self._learning_rate, beta1=0.9, beta2=0.999, eps=1e-8,
            weight_decay=0.0,
        )  # fmt: skip


class Mlp:
    """An MLP d -> hidden... -> 1 with ReLU, its gradient and its optimizer (Adam)."""

    def __init__(self, network: torch.nn.Sequential, learning_rate: float, rows: int, precision: torch.dtype) -> None:
        """Copy the weights of a network, and allocate all buffers on its device.

        Args:
            network: linear layers with ReLU between them.
            learning_rate: of Adam.
            rows: most responses of one pass.
            precision: of the features, and of the factors of all matrix products.
        """
        linear = [layer for layer in network if isinstance(layer, torch.nn.Linear)]
        self.parameters = torch.nn.utils.parameters_to_vector(network.parameters()).detach().clone()
        """All weights and biases, layer by layer."""
        self.precision = precision
        self._network = network
        self.gradient = torch.zeros_like(self.parameters)
        """Gradient of the last step."""
        self._adam = Adam(self.parameters, learning_rate)
        narrow = self.precision != self.parameters.dtype
        self._factors = self.parameters.to(self.precision) if narrow else self.parameters
        """The factors of matrix products: the weights, or a narrower copy of them."""
        self._slopes = torch.zeros_like(self._factors) if narrow else self.gradient
        self._weights = _views(self._factors, linear)
        self._weight_slopes = _views(self._slopes, linear)
        like = {"dtype": self.precision, "device": self.parameters.device}
        self._inputs = torch.empty(rows, linear[0].in_features, **like)
        self._outputs = [torch.empty(rows, layer.out_features, **like) for layer in linear]
        self._by_outputs = [torch.empty(rows, layer.out_features, **like) for layer in linear[:-1]]

    def step(self, features: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Take one step of Adam, and return the mean loss (scalar) of the batch before it."""
        rewards = self._forward(features, batch.distinct)
        loss = batch.loss(rewards)
        self._backward(batch.slope(rewards))
        self._adam.step(self.gradient)
        return loss

    def loss(self, features: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return the mean binary cross-entropy (scalar), in nats, of a batch of any size."""
        rows = len(self._inputs)
        # Copied: the next part goes through the same buffers.
        return batch.loss(torch.cat([self._forward(features, part).clone() for part in batch.distinct.split(rows)]))

    def give_back(self, parameters: torch.Tensor) -> None:
        """Set the weights of the network to `parameters`."""
        torch.nn.utils.vector_to_parameters(parameters, self._network.parameters())

    def _forward(self, features: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Return the rewards (u,) of some rows (u,) of the features; keep what `_backward` needs in the buffers."""
        if self._factors is not self.parameters:
            self._factors.copy_(self.parameters)
        self._rows = len(rows)
        inputs = torch.index_select(features, 0, rows, out=self._inputs[: self._rows])
        for layer, (weight, bias) in enumerate(self._weights):
            if layer:
                inputs.relu_()
            inputs = torch.addmm(bias, inputs, weight.t(), out=self._outputs[layer][: self._rows])
        return inputs.squeeze(1).to(self.parameters.dtype)

    def _backward(self, slope: torch.Tensor) -> None:
        """Compute `gradient`, given the derivative of the loss by each reward of the last `_forward`."""
        by_output = slope.to(self.precision).unsqueeze(1)
        for layer in reversed(range(len(self._weights))):
            inputs = (self._outputs[layer - 1] if layer else self._inputs)[: self._rows]
            by_weight, by_bias = self._weight_slopes[layer]
            torch.mm(by_output.t(), inputs, out=by_weight)
            torch.sum(by_output, 0, out=by_bias)
            if layer:
                buffer = self._by_outputs[layer - 1][: self._rows]
                by_output = torch.mm(by_output, self._weights[layer][0], out=buffer)
                # The outputs went through ReLU, which is flat where they are 0.
                torch.ops.aten.threshold_backward.grad_input(by_output, inputs, 0, grad_input=by_output)
        if self._slopes is not self.gradient:
            self.gradient.copy_(self._slopes)


def _views(vector: torch.Tensor, linear: Sequence[torch.nn.Linear]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return views of the weight (out, in) and the bias (out,) of each layer in the vector of all."""
    views, at = [], 0
    for layer in linear:
        middle = at + layer.weight.numel()
        end = middle + layer.bias.numel()
        views.append((vector[at:middle].view_as(layer.weight), vector[middle:end]))
        at = end
    return views
