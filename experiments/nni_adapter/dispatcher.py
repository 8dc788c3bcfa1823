"""NNI's dispatcher, the process of the tuner and the assessor; this one tells NNI's manager what they raise.

NNI 2.10.1 only logs it and ends the thread (nni/runtime/msg_dispatcher_base.py:115). The process then waits
for a next command, which may never come, and the search with it. `preload.js` starts this file in place of
NNI's. No longer needed when NNI reports such errors.
"""

import runpy
from typing import Any

from nni.runtime.msg_dispatcher_base import MsgDispatcherBase
from nni.runtime.tuner_command_channel import CommandType

process_command = MsgDispatcherBase.process_command


def process_or_report(self: MsgDispatcherBase, command: Any, data: Any) -> None:
    """Do as NNI's method does, but tell NNI's manager whatever is raised: its state is then ERROR."""
    try:
        process_command(self, command, data)
    except BaseException as error:
        self.send(CommandType.Error, repr(error))
        if isinstance(error, Exception):
            raise
        raise RuntimeError(repr(error)) from error  # SystemExit would end the thread without a word


def report_errors() -> None:
    """Replace NNI's method in this process."""
    MsgDispatcherBase.process_command = process_or_report


if __name__ == "__main__":
    from experiments.nni_adapter import dispatcher  # this file, by the name under which others import it

    dispatcher.report_errors()
    runpy.run_module("nni", run_name="__main__")
