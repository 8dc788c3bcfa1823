"""Reads an experiment file by NNI's code."""

import contextlib
import io
import traceback
from pathlib import Path
from typing import Any

from nni.experiment.config import ExperimentConfig
from nni.experiment.config.utils import unset_base_path
from nni.runtime.config import get_builtin_config_file, get_config_directory

from experiments.nni_adapter.database import check_file, error_prefix
from judge.common.files import atomic_write


def load(file: Path) -> Any:
    """Return the experiment file as NNI's `ExperimentConfig`, canonical: absolute paths, defaults filled in.

    Raises UserError if there is none or NNI cannot read it. Needs no torch.
    """
    check_file(file)
    write_nni_defaults()
    try:
        # NNI's readers raise errors of many kinds.
        with error_prefix(str(file)), contextlib.redirect_stdout(io.StringIO()):
            config = ExperimentConfig.load(file)
            # The address that workers call: their loopback (experiments.nni_adapter.remote).
            config.nni_manager_ip = "127.0.0.1"
            try:
                return config.canonical_copy()
            except AssertionError as error:  # NNI's have no text: the condition is in their line
                condition = traceback.extract_tb(error.__traceback__)[-1].line.removeprefix("assert ")
                raise ValueError(f"this must hold: {condition.replace('self.', '')}") from None
    finally:
        unset_base_path()  # NNI sets it in nni/experiment/config/base.py:144 and leaves it after an error


def write_nni_defaults() -> None:
    """Write NNI's lists of user-defined algorithms and services if they do not exist.

    NNI does this at first use, not atomically (nni/runtime/config.py:35): another process may read half.
    """
    with contextlib.suppress(OSError):  # NNI reports it where it needs them
        for name in ("registered_algorithms.yml", "training_services.json"):
            file, content = get_config_directory() / name, get_builtin_config_file(name).read_bytes()
            if not file.exists():
                atomic_write(file, lambda part, content=content: part.write_bytes(content))
