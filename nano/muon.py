"""Muon: momentum whose update is made orthogonal, for the weight matrices of the hidden layers.

After Jordan et al. (2024). Matrices of one shape are handled together. Learns tiny models several
times faster than AdamW, which is kept for embeddings, norms and scalars.
"""

import torch

MOMENTUM = 0.95
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


class Muon:
    """Orthogonalised Nesterov momentum over two-dimensional parameters."""

    def __init__(self, parameters, weight_decay=0.01):
        self.parameters = list(parameters)
        self.momenta = [torch.zeros_like(parameter) for parameter in self.parameters]
        self.weight_decay = weight_decay
        self.groups = {}
        for index, parameter in enumerate(self.parameters):
            self.groups.setdefault(tuple(parameter.shape), []).append(index)

    @torch.no_grad()
    def step(self, rate):
        """One update with learning rate `rate`."""
        gradients = [parameter.grad for parameter in self.parameters]
        torch._foreach_lerp_(self.momenta, gradients, 1 - MOMENTUM)
        updates = torch._foreach_lerp(gradients, self.momenta, MOMENTUM)
        torch._foreach_mul_(self.parameters, 1 - rate * self.weight_decay)
        for (rows, columns), indices in self.groups.items():
            directions = orthogonalise(torch.stack([updates[index] for index in indices])) * max(1, rows / columns) ** 0.5
            torch._foreach_add_([self.parameters[index] for index in indices], list(directions), alpha=-rate)


def orthogonalise(matrices, steps=5):
    """Nearly orthogonal matrices with the same row and column spaces, `[n, rows, columns]`."""
    a, b, c = NEWTON_SCHULZ
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x
