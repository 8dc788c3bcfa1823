"""A lack of memory is recognised, whoever says so."""

import pytest
import torch

from judge.common.errors import UserError, is_out_of_memory


@pytest.mark.parametrize("error", [
    MemoryError(),
    torch.OutOfMemoryError("Tried to allocate 2 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"),
    torch.AcceleratorError("CUDA error: out of memory\nSearch for `cudaErrorMemoryAllocation' in the manual"),
    RuntimeError("CUDA driver error: out of memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    RuntimeError("NCCL error in: NCCLUtils.cpp:94, unhandled cuda error\nCuda failure 2 'out of memory'"),
])  # fmt: skip
def test_errors_of_a_lack_of_memory_are_recognised(error):
    assert is_out_of_memory(error)


@pytest.mark.parametrize("error", [
    RuntimeError("CUDA error: an illegal memory access was encountered"),
    RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    OSError("out of memory in the disk's controller"),
    UserError("out of memory on cuda: reduce --batch-size (CUDA error: out of memory)"),  # is told already
])  # fmt: skip
def test_other_errors_are_not_taken_for_it(error):
    assert not is_out_of_memory(error)
