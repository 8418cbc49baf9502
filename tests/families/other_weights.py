"""the shipped weights -> a folder with other numbers for one network of the miniature"""

import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from aiprod_components.families.miniature import SHIPPED_WEIGHTS


def perturbed(folder: Path, network: str, *, seed: int = 1, by: float = 0.05) -> Path:
    """Every number as much larger or smaller, at random."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(seed)
    shipped = load_file(SHIPPED_WEIGHTS / f"{network}.safetensors")
    noise = {name: torch.randn(tensor.shape, generator=generator) for name, tensor in shipped.items()}
    save_file(
        {name: (t.float() * (1 + by * noise[name])).to(t.dtype) if t.is_floating_point() else t for name, t in shipped.items()},
        folder / f"{network}.safetensors",
    )
    shutil.copy(SHIPPED_WEIGHTS / f"{network}.json", folder)
    return folder
