"""Errors that are shown to the user as one line."""


import re

# torch has a class for the errors of its GPU allocator only. These are of its CPU allocator, of CUDA where
# there is no room for a context, of CUDA's libraries (cuBLAS may say that it has no handle), and of NCCL.
MEMORY_MESSAGE = re.compile(
    r"DefaultCPUAllocator|(CUDA|NCCL)\b.*\bout of memory|cudaErrorMemoryAllocation"
    r"|CU[A-Z]+_STATUS_(\w+_)?ALLOC(ATION)?_FAILED|CUBLAS_STATUS_NOT_INITIALIZED", re.IGNORECASE | re.DOTALL)


class UserError(Exception):
    """A mistake that the user can correct. Its one line says what is wrong, where, and what to do."""


def one_line(error: BaseException | str) -> str:
    """Return the error's text without line breaks, `printable`."""
    return printable(" ".join(str(error).split()))


def printable(text: object) -> str:
    """Return the text of `text` with control characters, and bytes of a file's name that are no UTF-8, as
    escapes: a name may hold line breaks, or codes that a terminal obeys."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether the memory of the GPU or of the machine ran out."""
    return isinstance(error, MemoryError) or isinstance(error, RuntimeError) and (
        type(error).__name__ == "OutOfMemoryError" or bool(MEMORY_MESSAGE.search(str(error))))
