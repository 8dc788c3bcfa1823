"""Errors as one line for the user."""


class UserError(Exception):
    """A mistake that the user can mend. Its text is one line: what is wrong, where, what to do."""


def one_line(error: BaseException) -> str:
    """The error's text without line breaks."""
    return " ".join(str(error).split())


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a GPU's or the machine's memory ran out; torch has a type of its own for GPUs only."""
    return (isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
            or "DefaultCPUAllocator" in str(error))
