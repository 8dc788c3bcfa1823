"""Reading files of tensors and plain data that torch.save wrote: checkpoints, judges, caches."""

import zipfile
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from judge.common.errors import is_out_of_memory, one_line


def read_tensors(file: Path | str, device: torch.device | str = "cpu", mmap: bool = False) -> Any:
    """Return the tensors and plain data in `file`, without running any code that it may hold.

    With `mmap` the tensors are views of the file: processes share them, and memory holds what is used.
    Raises FileNotFoundError, or ValueError if `file` is damaged or holds something else.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            if archive.testzip():  # compares checksums, which torch.load does not: some GB a second
                raise ValueError("it is damaged")
        return torch.load(file, map_location=device, weights_only=True, mmap=mmap)
    except FileNotFoundError:
        raise
    except UnpicklingError:  # torch's message advises weights_only=False, which would run the file
        raise ValueError("it holds more than tensors and plain data") from None
    except Exception as error:  # damaged files fail in many ways
        if is_out_of_memory(error):
            raise
        raise ValueError(one_line(error) or type(error).__name__) from None
