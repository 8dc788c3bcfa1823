"""Errors that are shown to the user as one line."""


class UserError(Exception):
    """A mistake that the user can correct. Its one line says what is wrong, where, and what to do."""


def one_line(error: BaseException) -> str:
    """Return the error's text without line breaks."""
    return " ".join(str(error).split())


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether the memory of the GPU or of the machine ran out."""
    # torch has an error class for GPUs only; its CPU allocator raises a RuntimeError.
    return (isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
            or "DefaultCPUAllocator" in str(error))
