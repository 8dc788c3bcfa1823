"""Facts about the machine: its cores, its GPU, its memory, and whether they support bf16."""

import os
import platform
import subprocess
from contextlib import suppress

import torch


def available_cores() -> int:
    """Return the number of cores that a container or `taskset` lets this process use."""
    return len(os.sched_getaffinity(0))


def device_name(device: torch.device) -> str:
    """Return the name of the GPU or processor, for records."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu ({platform.machine()}, {available_cores()} cores)"


def gpu_facts(device: torch.device) -> dict | None:
    """Return the name, the memory in bytes and the power limit in watts of the GPU, and the GPUs that the
    environment lets this process see; None on a CPU."""
    if device.type != "cuda":
        return None
    gpu = torch.cuda.get_device_properties(device)
    return {"name": gpu.name, "memory": gpu.total_memory,
            "visible": os.environ.get("CUDA_VISIBLE_DEVICES"), "power_limit": power_limit(gpu.uuid)}


def power_limit(uuid: object) -> float | None:
    """Return the power limit of a GPU in watts, or None if nvidia-smi is not there or does not say."""
    command = ["nvidia-smi", f"--id=GPU-{uuid}", "--query-gpu=power.limit", "--format=csv,noheader,nounits"]
    with suppress(OSError, ValueError, subprocess.TimeoutExpired):
        return float(subprocess.run(command, capture_output=True, text=True, timeout=10).stdout)
    return None


def tf32(device: torch.device) -> dict[str, bool] | None:
    """Return whether the GPU rounds the factors of fp32 convolutions and matrix products to TF32."""
    if device.type != "cuda":
        return None
    return {"convolutions": torch.backends.cudnn.allow_tf32,
            "products": torch.backends.cuda.matmul.allow_tf32}


def peak_memory(device: torch.device) -> int | None:
    """Return the most bytes of the GPU that this process has held for tensors so far; None on a CPU.

    CUDA itself and its libraries take some hundred megabytes more.
    """
    return torch.cuda.max_memory_reserved(device) if device.type == "cuda" else None


def supports_bf16(device: torch.device) -> bool:
    """Return whether the device computes in bf16 natively rather than by emulation."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    return capabilities.get("avx512_bf16", False) or capabilities.get("amx_bf16", False)
