"""low-rank factors of a safetensors file -> a network's weights and back, without drift

W' = W + scale · up @ down (Hu et al. 2021). Files of PEFT and diffusers are read: NAME.lora_A.weight / NAME.lora_B.weight (or lora.down /
lora.up, lora_down / lora_up), with or without `base_model.model.`, `transformer.` or `diffusion_model.` in front; alphas as NAME.alpha, or
in PEFT's config, which stands in the header or beside FILE.safetensors as FILE.json.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils import parametrize

from aiprod_components.errors import CheckpointError

PREFIXES = re.compile(r"^(base_model\.model\.|transformer\.|diffusion_model\.)+")
FACTOR = re.compile(r"^(?P<module>.+?)\.(?P<kind>lora_A|lora_B|lora\.down|lora\.up|lora_down|lora_up)(\.default)?\.weight$")
ALPHA = ".alpha"
CONFIG_KEY = "lora_adapter_metadata"  # diffusers'
DOWN = ("lora_A", "lora.down", "lora_down")


@dataclass(frozen=True)
class LowRank:
    """The factors of one module's weight; a kernel's `down` keeps its shape, its `up` is 1x1x1."""

    down: Float[Tensor, "r *rest"]
    up: Float[Tensor, "o r *ones"]
    strength: float  # alpha / rank

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the weight that they change."""
        return (len(self.up), *self.down.shape[1:])

    def delta(self) -> Float[Tensor, "o *rest"]:
        up, down = self.up.float().flatten(start_dim=1), self.down.float()
        return self.strength * (up @ down.flatten(start_dim=1)).unflatten(1, down.shape[1:])


@dataclass(frozen=True)
class Lora:
    """A name, and the low-rank factors by the name of the module that they change."""

    name: str
    factors: Mapping[str, LowRank]


def read_lora(path: Path) -> Lora:
    """Raises CheckpointError naming the file and the fault when it is not a LoRA in PEFT's or diffusers' format."""
    with _opened(path) as file:
        alphas = _alphas(file, path)
        factors: dict[str, LowRank] = {}
        for module, keys in _pairs(file, path).items():
            down, up = file.get_tensor(keys["down"]), file.get_tensor(keys["up"])
            if not (down.isfinite().all() and up.isfinite().all()):
                raise CheckpointError(f"{path}: the factors of {module} are not all finite; it was not trained to an end")
            factors[module] = LowRank(down, up, alphas.strength(module, rank=len(down)))
    return Lora(path.stem, factors)


def check_header(path: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of the weights that a file changes, from its header and its alphas. Raises CheckpointError as `read_lora` does."""
    with _opened(path) as file:
        _alphas(file, path)
        return {module: (_shape(file, keys["up"])[0], *_shape(file, keys["down"])[1:]) for module, keys in _pairs(file, path).items()}


def metadata_of(path: Path) -> dict[str, str]:
    """What the file says of itself. Raises CheckpointError when it is not a whole safetensors file."""
    with _opened(path) as file:
        return file.metadata() or {}


def _opened(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is not a whole safetensors file ({error}); copy it again") from error


def _pairs(file: Any, path: Path) -> dict[str, dict[str, str]]:
    """Module -> the keys of its factors."""
    found: dict[str, dict[str, str]] = {}
    for key in file.keys():  # noqa: SIM118
        name = PREFIXES.sub("", key)
        if match := FACTOR.match(name):
            found.setdefault(match["module"], {})["down" if match["kind"] in DOWN else "up"] = key
        elif not name.endswith(ALPHA):
            raise CheckpointError(f"{path} holds {key!r}, which is no low-rank factor; save the LoRA alone, in PEFT's or diffusers' format")
    if not found:
        raise CheckpointError(f"{path} holds no low-rank factors")
    for module, keys in found.items():
        if keys.keys() != {"down", "up"} or not _fit(_shape(file, keys["down"]), _shape(file, keys["up"])):
            raise CheckpointError(f"{path}: the factors of {module} do not fit each other")
    return found


def _fit(down: tuple[int, ...], up: tuple[int, ...]) -> bool:
    """Whether these are the shapes of factors: rank x inputs (x kernel), and outputs x rank (x 1s)."""
    return len(down) in (2, 5) and len(up) == len(down) and down[0] == up[1] > 0 and set(up[2:]) <= {1}


@dataclass(frozen=True)
class _Alphas:
    """What a file says of its factors' strength: alphas by module, by PEFT's patterns of modules, and one for the rest."""

    own: Mapping[str, float]
    patterns: Mapping[re.Pattern[str], float]
    common: float | None
    rank_stabilized: bool  # alpha / sqrt(rank) (rsLoRA, Kalajdzievski 2023)

    def strength(self, module: str, *, rank: int) -> float:
        """1 where nothing is said."""
        matching = (alpha for pattern, alpha in self.patterns.items() if pattern.fullmatch(module))
        alpha = self.own[module] if module in self.own else next(matching, self.common)
        return 1.0 if alpha is None else alpha / (rank**0.5 if self.rank_stabilized else rank)


def _alphas(file: Any, path: Path) -> _Alphas:
    """From tensors of that name and from PEFT's config. Raises CheckpointError when they cannot be read, or are no finite numbers."""
    try:
        own = {PREFIXES.sub("", key).removesuffix(ALPHA): float(file.get_tensor(key)) for key in file.keys() if key.endswith(ALPHA)}  # noqa: SIM118
        config = {key.split(".")[-1]: value for key, value in _config(file, path).items()}
        patterns = {_ending(text): float(alpha) for text, alpha in (config.get("alpha_pattern") or {}).items()}
        common = float(config["lora_alpha"]) if "lora_alpha" in config else None
        if not all(map(math.isfinite, (*own.values(), *patterns.values(), common or 0.0))):
            raise ValueError("not a finite number")
    except (ValueError, TypeError, RuntimeError, AttributeError, OverflowError, re.error) as error:
        raise CheckpointError(f"{path} says no readable alpha ({error}); save it again") from error
    return _Alphas(own, patterns, common, bool(config.get("use_rslora")))


def _ending(text: str) -> re.Pattern[str]:
    """PEFT's way to name modules: a pattern of their whole name, or of its last parts."""
    return re.compile(rf"(.*\.)?({PREFIXES.sub('', text)})")


def _config(file: Any, path: Path) -> dict[str, Any]:
    """PEFT's: as JSON in the header, where diffusers keeps it, or in a file of the same name beside this one."""
    beside = path.with_suffix(".json")
    try:
        text = (file.metadata() or {}).get(CONFIG_KEY) or (beside.read_text() if beside.is_file() else "{}")
    except OSError as error:
        raise CheckpointError(f"{beside.name}, beside the LoRA, cannot be read: {error.strerror}") from error
    return dict(json.loads(text))


def _shape(file: Any, key: str) -> tuple[int, ...]:
    return tuple(file.get_slice(key).get_shape())


def save_lora(lora: Lora, path: Path, *, metadata: Mapping[str, str]) -> None:
    """In PEFT's format and float16, with the scale of `alpha / rank` folded into `up`."""
    tensors: dict[str, Tensor] = {}
    for module, pair in lora.factors.items():
        tensors[f"{module}.lora_A.weight"] = pair.down.detach().cpu().half().contiguous()
        tensors[f"{module}.lora_B.weight"] = (pair.up.detach().cpu() * pair.strength).half().contiguous()
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, metadata=dict(metadata))


def misfit(lora_shapes: Mapping[str, tuple[int, ...]], weights: Mapping[str, tuple[int, ...]]) -> str | None:
    """Why deltas of these shapes do not belong to a network with these weights; None when they do."""
    for module, shape in lora_shapes.items():
        if module not in weights:
            return f"it changes {module}, which this network has not; save it with the network's own names, like {max(weights)}"
        if shape != weights[module]:
            return f"its {module} is {'x'.join(map(str, shape))}, the network's {'x'.join(map(str, weights[module]))}"
    return None


def changeable(model: nn.Module) -> dict[str, nn.Linear | nn.Conv3d]:
    """Every module whose weight a LoRA may change."""
    return {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear | nn.Conv3d)}


def weight_shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Of every module whose weight a LoRA may change."""
    return {name: tuple(module.weight.shape) for name, module in changeable(model).items()}


class LoraFuser:
    """Fuses LoRAs into a network's weights, each with a scale, and takes them out again bit for bit.

    The weights that were ever changed are kept as they were; nothing is subtracted, so nothing drifts.
    """

    def __init__(self, model: nn.Module) -> None:
        self._modules = changeable(model)
        self._shapes = weight_shapes(model)
        self._originals: dict[str, Tensor] = {}
        self._fused: tuple[tuple[str, float], ...] | None = ()

    @torch.no_grad()
    def fuse(self, loras: Sequence[tuple[Lora, float]]) -> None:
        """The network becomes its own weights plus these, whatever was fused before. None: its own weights.

        Raises CheckpointError when a LoRA belongs to another network.
        """
        chosen = tuple((lora.name, scale) for lora, scale in loras)
        if chosen == self._fused:
            return
        for lora, _ in loras:
            if fault := misfit({name: pair.shape for name, pair in lora.factors.items()}, self._shapes):
                raise CheckpointError(f"lora {lora.name} belongs to another network: {fault}")
        self._fused = None  # until all is written: whatever stops this, the next call begins with the own weights
        for name, original in self._originals.items():
            self._modules[name].weight.copy_(original)
        for lora, scale in loras:
            for name, pair in lora.factors.items():
                weight = self._modules[name].weight
                self._originals.setdefault(name, weight.clone())
                weight.add_((scale * pair.delta()).to(weight.device, weight.dtype))
        self._fused = chosen


class Injected(nn.Module):
    """A weight with low-rank factors on top: what a LoRA's training trains. `up` starts at zero, so nothing changes at first."""

    def __init__(self, weight: Tensor, *, rank: int) -> None:
        super().__init__()
        fan_in = weight[0].numel()
        self.down = nn.Parameter(torch.randn(rank, *weight.shape[1:]) * fan_in**-0.5)
        self.up = nn.Parameter(torch.zeros(len(weight), rank))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + (self.up @ rearrange(self.down, "r ... -> r (...)")).unflatten(1, weight.shape[1:])


def inject(model: nn.Module, *, rank: int, modules: str) -> None:
    """Freezes a network and puts trainable low-rank factors on the weights of modules whose name matches the pattern `modules`."""
    model.requires_grad_(False)
    for name, module in changeable(model).items():
        if re.search(modules, name):
            parametrize.register_parametrization(module, "weight", Injected(module.weight, rank=rank))


def injected(model: nn.Module, *, name: str) -> Lora:
    """What was trained on top of a network."""
    found: dict[str, LowRank] = {}
    for path, module in model.named_modules():
        if isinstance(module, Injected):
            owner = path.removesuffix(".parametrizations.weight.0")
            ones = (1,) * (module.down.ndim - 2)
            found[owner] = LowRank(module.down.detach(), module.up.detach().reshape(*module.up.shape, *ones), 1.0)
    return Lora(name, found)
