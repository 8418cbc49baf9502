"""a network as it is before training -> one with something to say in every layer"""

from typing import TypeVar

from torch import nn

Network = TypeVar("Network", bound=nn.Module)


def outspoken(network: Network, *, std: float) -> Network:
    """Untrained residual branches are silent and would hide a mistake in them."""
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=std)
    return network.eval().requires_grad_(False)
