"""NNI's dispatcher tells NNI's manager what its tuner or assessor raises."""

from types import SimpleNamespace

import pytest
from nni.runtime.tuner_command_channel import CommandType

from experiments.nni_adapter import dispatcher


@pytest.mark.parametrize("error", [ValueError("sigma < 0"), KeyError("x"), SystemExit("leaves"),
                                   MemoryError()])
def test_whatever_is_raised_is_sent_to_the_manager_and_ends_the_thread_with_a_traceback_in_the_log(
    error, monkeypatch,
):
    """NNI logs an Exception, but not SystemExit."""
    def fail(*_):
        raise error

    monkeypatch.setattr(dispatcher, "process_command", fail)
    sent = []
    with pytest.raises(Exception) as caught:
        dispatcher.process_or_report(SimpleNamespace(send=lambda *words: sent.append(words)), None, None)
    assert sent == [(CommandType.Error, repr(error))] and repr(error) in repr(caught.value)
