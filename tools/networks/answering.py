"""Networks that make another answer of a network's."""

from __future__ import annotations

from typing import Any

from torch import nn

__all__ = ["Answering"]


class Answering(nn.Module):
    """Base of what makes another answer of a network's, ``self.network``: its state dictionary is that of this network."""

    network: nn.Module

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Of the network inside."""
        return self.network.state_dict(*args, **kwargs)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # Not load_state_dict, which is asked of the outermost module alone: this one may lie within an average of weights.
        for key in [key for key in state_dict if key.startswith(prefix)]:
            state_dict[f"{prefix}network.{key.removeprefix(prefix)}"] = state_dict.pop(key)
        super()._load_from_state_dict(state_dict, prefix, *args)
