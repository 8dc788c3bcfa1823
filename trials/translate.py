"""A finished generator, and what it paints."""

from pathlib import Path

import torch

from judge.command import UserError, one_line
from trials.cyclegan import CycleGAN, Settings
from trials.records import read_json


def trained(folder: Path, device: torch.device) -> CycleGAN:
    """The networks of the CycleGAN in a trial's folder, as far as they were trained.

    Raises:
        UserError: there is no such trial, or its checkpoint cannot be read.
    """
    record = read_json(folder / "run.json")
    if record.get("system") != "cyclegan":
        raise UserError(f"{folder} is not the folder of a CycleGAN trial: it has no such run.json")
    try:
        state = torch.load(folder / "checkpoint.pt", map_location=device, weights_only=True)
        settings = Settings(**record["settings"])
        net = CycleGAN(settings, record["schedule"]["steps"], device)
        net.load_state_dict(state)
    except FileNotFoundError:
        raise UserError(f"{folder} has no checkpoint yet: it is written at the first report") from None
    except Exception as error:  # foreign bytes fail in many ways
        raise UserError(f"{folder / 'checkpoint.pt'} cannot be read ({one_line(error)})") from None
    return net
