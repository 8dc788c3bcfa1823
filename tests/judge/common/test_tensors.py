"""Reading files of tensors: test_cache.py and test_model.py have the claims about damage and code."""

import pytest
import torch

from judge.common.tensors import read_tensors


@pytest.mark.parametrize(("failure", "raised"), [
    (torch.OutOfMemoryError("CUDA out of memory"), torch.OutOfMemoryError),
    (RuntimeError("storage has wrong size"), ValueError),
])
def test_a_lack_of_memory_is_not_taken_for_a_damaged_file(monkeypatch, tmp_path, failure, raised):
    def fail(*_, **__):
        raise failure

    torch.save({"x": torch.zeros(3)}, tmp_path / "x.pt")
    monkeypatch.setattr(torch, "load", fail)
    with pytest.raises(raised):
        read_tensors(tmp_path / "x.pt")
