"""TODO"""


import pandas as pd
import torch

from judge.common.rng import rng
from judge.corruptions import HELD_OUT_CORRUPTIONS, TRAINING_CORRUPTIONS, Corruption
from judge.images import to_bytes, to_float
from judge.model import Judge
from judge.score import Scorer

# ---------------------------------------------------------------------------------------------
# Measuring


def controls_table(judge: Judge, photos: torch.Tensor, paintings: torch.Tensor, seed: int = 0) -> pd.DataFrame:
    """What a score makes of pretended translations: a row a control, undamaged images first.

    Columns: `shown`, whether the judge's training had this kind; then, for controls made from
    photographs, every part of the score and `default` as a trial would get it; then `painting`,
    the `default` of the same control made from paintings, the undamaged ones as its sources, and
    `kept`, the share that is of what they score undamaged. Real paintings for the distance are one
    half of `paintings`; controls are made from the other.

    Args:
        photos, paintings: held-out images, uint8 [N, 3, size, size].
    """
    device = judge.mean.device
    photos, painted, real = (to_float(x).to(device) for x in (photos, paintings[::2], paintings[1::2]))
    of_photos, of_paintings = Scorer(judge, photos, real), Scorer(judge, painted, real)
    pretended = {"copy": (photos, painted), "the same painting": tuple(
        painted[:1].expand_as(images) for images in (photos, painted))}
    for name, damage in {**HELD_OUT_CORRUPTIONS, **TRAINING_CORRUPTIONS}.items():
        pretended[name] = tuple(_corrupted(images, damage, name, seed) for images in (photos, painted))
    found = pd.DataFrame([
        {"control": name, "shown": name in TRAINING_CORRUPTIONS, **of_photos(from_photos).as_dict(),
         "painting": of_paintings(from_paintings).default}
        for name, (from_photos, from_paintings) in pretended.items()
    ]).set_index("control")  # fmt: skip
    return found.assign(kept=found["painting"] / found.loc["copy", "painting"])


def _corrupted(images: torch.Tensor, damage: Corruption, name: str, seed: int) -> torch.Tensor:
    """`damage` done to float images [N, 3, size, size]; the same each time."""
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(rng(seed, "controls", name).get_state())
        return to_float(torch.stack([damage(image) for image in to_bytes(images).cpu()])).to(images.device)
