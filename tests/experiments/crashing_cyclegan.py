"""CycleGAN whose trial 3 dies before it asks for its parameters and whose trial 5 dies after.

An engine that hands parameters out first come, first served (NNI 3.0 does) gives later trials another's.
"""

import os
import sys

from trials import cyclegan
from trials.session.session import run

NUMBER = int(os.environ["NNI_TRIAL_SEQ_ID"])
Settings = cyclegan.Settings


def train(settings, session) -> None:
    if NUMBER == 5:
        raise RuntimeError("crashed after asking")
    cyclegan.train(settings, session)


if __name__ == "__main__":
    if NUMBER == 3:
        sys.exit("crashed before asking")
    run(train, Settings)
