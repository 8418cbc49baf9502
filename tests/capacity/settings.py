"""stage times, pools and a traffic that are quick to reckon with, for tests"""

from typing import Any

from aiprod_components.families import make_family
from deployments.capacity.pools import Pools
from deployments.capacity.setting import Setting
from deployments.capacity.times import Times
from deployments.capacity.traffic import Traffic

DRAFT = {"model": "miniature", "pipeline": "distilled", "size": "64x64", "num_frames": 5}
STAGES = ("text_encoder", "denoiser", "upsampler", "refiner", "vae_decoder")
SECONDS = {"text_encoder": 0.1, "denoiser": 4.0, "upsampler": 0.1, "refiner": 2.0, "vae_decoder": 1.0}


def traffic(*, per_second: float = 1.0, seconds: float = 600, arrival: dict[str, Any] | None = None, **more: Any) -> Traffic:
    each = {"name": "drafts", "request": DRAFT, "arrival": arrival or {"kind": "poisson", "per_second": per_second}, **more}
    return Traffic.model_validate({"name": "test", "seconds": seconds, "classes": [each]})


def times(**more: Any) -> Times:
    calls = {stage: {"seconds_per_call": seconds} for stage, seconds in SECONDS.items()}
    return Times.model_validate({"source": "a test", "stages": {"miniature": calls}, **more})


def gpu_pools(**more: Any) -> Pools:
    small = {"text_encoder": {"gpus": 0.1}, "upsampler": {"gpus": 0.1}}
    return Pools.model_validate(
        {
            "pools": [
                {"name": "small", "accelerator": "L4", "price_per_hour": 1.0, "stages": small},
                {"name": "denoise", "accelerator": "H100", "price_per_hour": 4.0, "stages": {"denoiser": {"gpus": 1}}},
                {"name": "refine", "accelerator": "H100", "price_per_hour": 3.0, "stages": {"refiner": {"gpus": 1}}},
                {"name": "decode", "accelerator": "L4", "price_per_hour": 1.0, "stages": {"vae_decoder": {"gpus": 0.5, "threads": 3}}},
            ],
            **more,
        }
    )


def cpu_pools(*, cores: int = 2, threads: int = 2) -> Pools:
    stages = {stage: {"cpus": 0.1, "threads": threads} for stage in STAGES}
    return Pools.model_validate({"pools": [{"name": "cpu", "cores": cores, "price_per_hour": 0.5, "stages": stages}]})


def setting(*, of: Traffic | None = None, pools: Pools | None = None, at: Times | None = None, slots: int = 2) -> Setting:
    return Setting(of or traffic(), {"miniature": make_family("miniature")}, at or times(), pools or gpu_pools(), slots)
