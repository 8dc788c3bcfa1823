"""Whether NNI can run in a folder: it does not quote paths for the shell.

    python -m experiments.nni_adapter.place          # says so before anything is installed; make does this

NNI's script of a trial has `1>PATH/stdout` and `cd $NNI_CODE_DIR` without quotes (in nni_node,
training_service/local/localTrainingService.js:345), and `'PATH'` in quotes that the path may hold too
(training_service/common/util.js:76). A folder in the variable PATH cannot have a colon. No longer needed when
NNI quotes all of them.
"""

import re
from pathlib import Path

from judge.common.cli import main
from judge.common.constants import ROOT
from judge.common.errors import UserError

UNSAFE = re.compile(r"[^\w@%+=,./~-]")  # \w: letters and digits of every language, and _


def check_place(what: str, path: Path | str) -> None:
    """Raise UserError if NNI cannot run in the folder `path`, of which the message says `what` it is."""
    if unsafe := UNSAFE.search(str(path)):
        raise UserError(f"{what} {str(path)!r}: NNI cannot run in a path with {unsafe[0]!r}, which it "
                        "does not quote for the shell: give the folder a name of letters, digits, - and _")


if __name__ == "__main__":
    main("salon", lambda arguments: check_place("the repository", ROOT.resolve()))
