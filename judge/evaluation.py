"""TODO"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from sklearn import metrics as sk

from judge.corruptions import reencode_jpeg
from judge.images import PAINTINGS, PHOTOS, DataSet, load_images, to_float
from judge.model import Judge
from judge.score import extract_features

CALIBRATION_BINS = 15  # Guo et al. 2017, section 5


# ---------------------------------------------------------------------------------------------
# Measuring


def class_weights(labels: torch.Tensor, classes: int) -> torch.Tensor:
    """A weight for each class, so that each counts the same however many images it has, [classes].

    Without it a judge expects as many paintings as it was calibrated on, and says so in every P.
    """
    counts = torch.bincount(labels, minlength=classes).clamp(min=1)
    return counts.sum() / (classes * counts)


@dataclass(frozen=True)
class Verdicts:
    """What a judge says of each test image, to look at its mistakes."""

    paths: Sequence[str]
    labels: np.ndarray
    """1 for a painting, 0 for a photograph, [N]."""
    painting: np.ndarray
    """P(painting), [N] in [0, 1]."""


def evaluate(judge: Judge, data: DataSet, device: torch.device) -> tuple[dict, Verdicts]:
    """Measures on the test images: auc, auc_reencoded, accuracy, brier, calibration_error,
    painting_calibration_error, confusion, counts.

    All but the confusion count photographs and paintings the same, however many there are of each.
    They are of photo against painting, P(neither) left aside: `judge.controls` measures the rest.
    `auc_reencoded` is the AUC that changes most when one domain alone goes through JPEG of quality
    75 with halved chroma: far from `auc`, the judge looks at compression, not at style.
    `confusion` has rows by truth and columns by verdict;
    `calibration_error` is the expected calibration error of the likelier class's probability (Guo et
    al. 2017, equation 3), `painting_calibration_error` that of P(painting), which is stricter: where
    too many are called paintings, too many photographs elsewhere do not make up for it.
    """
    photos, paintings = (load_images(data.test[domain], judge.size) for domain in (PHOTOS, PAINTINGS))
    pixels = torch.cat([photos.pixels, paintings.pixels])
    labels = np.repeat([0, 1], [len(photos.paths), len(paintings.paths)])
    painting, through_jpeg = (painting_probabilities(judge, x, device)
                              for x in (pixels, torch.stack([reencode_jpeg(x) for x in pixels])))
    auc = float(sk.roc_auc_score(labels, painting))
    one_sided = [float(sk.roc_auc_score(labels, np.where(labels == label, through_jpeg, painting)))
                 for label in (0, 1)]
    weights = class_weights(torch.from_numpy(labels), 2).numpy()[labels]
    measured = {
        "auc": auc,
        "auc_reencoded": max(one_sided, key=lambda other: abs(other - auc)),
        "accuracy": float(sk.accuracy_score(labels, painting > 0.5, sample_weight=weights)),
        "brier": float(sk.brier_score_loss(labels, painting, sample_weight=weights)),
        "calibration_error": calibration_error(
            (painting > 0.5) == labels, np.maximum(painting, 1 - painting), weights),
        "painting_calibration_error": calibration_error(labels, painting, weights),
        "confusion": sk.confusion_matrix(labels, painting > 0.5).tolist(),
        "counts": {"photos": photos.counts(), "paintings": paintings.counts()},
    }
    return measured, Verdicts(photos.paths + paintings.paths, labels, painting)


@torch.no_grad()
def painting_probabilities(judge: Judge, pixels: torch.Tensor, device: torch.device) -> np.ndarray:
    """P(painting) against photo, [N], of uint8 [N, 3, size, size]."""
    features = torch.cat([extract_features(judge, to_float(part).to(device)) for part in pixels.split(256)])
    return judge.against_photo(features).double().cpu().numpy()


def calibration_error(happened: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> float:
    """Mean gap between `probabilities`, [N], and how often what they foretell `happened`, bool [N], over
    bins of equal width, in [0, 1]; each image of a weight. Guo et al. 2017 (1706.04599), equation 3."""
    bins = np.minimum((probabilities * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    return float(np.abs(np.bincount(bins, weights * (probabilities - happened))).sum() / weights.sum())
