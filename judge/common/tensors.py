"""Files of tensors and plain data, as torch writes them: checkpoints, judges, paintings, caches."""

import zipfile
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from judge.common.errors import one_line


def read_tensors(file: Path | str, device: torch.device | str = "cpu") -> Any:
    """The tensors and plain data in `file`; nothing in it is run.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it holds something else, or is damaged.
    """
    try:
        with zipfile.ZipFile(file) as parts:
            if parts.testzip():  # compares checksums, which torch does not
                raise ValueError("it is damaged")
        return torch.load(file, map_location=device, weights_only=True)
    except FileNotFoundError:
        raise
    except UnpicklingError:  # torch's advice is to run what it holds
        raise ValueError("it holds more than tensors and plain data") from None
    except Exception as error:  # foreign bytes fail in many ways, all with one meaning
        raise ValueError(one_line(error) or type(error).__name__) from None
