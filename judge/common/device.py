"""Facts about the machine: its cores, its GPU, and whether they support bf16."""

import os
import platform

import torch


def available_cores() -> int:
    """Return the number of cores that a container or `taskset` lets this process use."""
    return len(os.sched_getaffinity(0))


def device_name(device: torch.device) -> str:
    """Return the name of the GPU or processor, for records."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu ({platform.machine()}, {available_cores()} cores)"


def supports_bf16(device: torch.device) -> bool:
    """Return whether the device computes in bf16 natively rather than by emulation."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    return capabilities.get("avx512_bf16", False) or capabilities.get("amx_bf16", False)
