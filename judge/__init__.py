"""The judge: a ResNet that tells paintings from photographs, and the scores of generated images."""

import signal
import sys

if sys.argv[:1] == ["-m"] and signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
    # `python -m` is importing a command: until `cli.main` runs, Ctrl-C ends it without a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
