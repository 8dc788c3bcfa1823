"""Evaluation of a judge on test images: AUC, accuracy, calibration, and P(painting) of each image."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn import metrics as sk

from judge.common.progress import progress
from judge.corruptions import reencode_jpeg
from judge.images import PAINTINGS, PHOTOS, DataSet, load_images
from judge.model import Judge
from judge.score import extract_features

CALIBRATION_BINS = 15  # Guo et al. 2017, section 5


def load_both_domains(domains: dict[str, list[Path]], size: int) -> tuple:
    """Return uint8 pixels [N, 3, size, size], labels [N] (1: painting), counts by domain, and N paths."""
    photos, paintings = load_images(domains[PHOTOS], size), load_images(domains[PAINTINGS], size)
    labels = torch.tensor([0] * len(photos.paths) + [1] * len(paintings.paths))
    counts = {"photos": photos.counts(), "paintings": paintings.counts()}
    return torch.cat([photos.pixels, paintings.pixels]), labels, counts, photos.paths + paintings.paths


def class_weights(labels: torch.Tensor, classes: int) -> torch.Tensor:
    """Return weights [classes] that give every class the same total: a judge calibrated without them learns
    the share of paintings in its data as a prior."""
    counts = torch.bincount(labels, minlength=classes).clamp(min=1)
    return counts.sum() / (classes * counts)


def evaluate(judge: Judge, data: DataSet) -> tuple[dict, pd.DataFrame]:
    """Return metrics on the test images, and a table with a row for each: file, label, p_painting.

    Metrics of P(painting) given that an image is a photo or a painting; all but the confusion matrix weight
    both classes equally:
        auc: area under the ROC curve.
        auc_reencoded: the AUC when only one class goes through JPEG of quality 75 with halved chroma; of the
            two the one further from `auc`. A large difference: the judge looks at compression, not style.
        accuracy, brier: share of correct predictions, Brier score.
        calibration_error: expected calibration error of the predicted class's probability.
        painting_calibration_error: that of P(painting), where errors about photographs and about paintings
            cannot cancel out.
        confusion: [2, 2] counts, a row for each true class and a column for each predicted class.
        counts: images read, skipped and enlarged, by domain.
    """
    pixels, labels, counts, files = load_both_domains(data.test, judge.size)
    weights, labels = class_weights(labels, 2)[labels].numpy(), labels.numpy()
    reencoded = torch.stack([reencode_jpeg(image) for image in progress(pixels, "re-encoding")])
    p_painting, p_reencoded = (painting_probabilities(judge, x) for x in (pixels, reencoded))
    auc = float(sk.roc_auc_score(labels, p_painting))
    one_class_reencoded = [float(sk.roc_auc_score(labels, np.where(labels == label, p_reencoded, p_painting)))
                           for label in (0, 1)]
    predicted = p_painting > 0.5
    metrics = {
        "auc": auc,
        "auc_reencoded": max(one_class_reencoded, key=lambda other: abs(other - auc)),
        "accuracy": float(sk.accuracy_score(labels, predicted, sample_weight=weights)),
        "brier": float(sk.brier_score_loss(labels, p_painting, sample_weight=weights)),
        "calibration_error": calibration_error(
            predicted == labels, np.maximum(p_painting, 1 - p_painting), weights),
        "painting_calibration_error": calibration_error(labels, p_painting, weights),
        "confusion": sk.confusion_matrix(labels, predicted).tolist(),
        "counts": counts,
    }
    return metrics, pd.DataFrame({"file": files, "label": labels, "p_painting": p_painting})


@torch.no_grad()
def painting_probabilities(judge: Judge, pixels: torch.Tensor) -> np.ndarray:
    """Return P(painting) against photo, [N], of uint8 [N, 3, size, size]."""
    return judge.painting_probability_against_photo(extract_features(judge, pixels)).double().cpu().numpy()


def calibration_error(outcomes: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> float:
    """Return the expected calibration error, in [0, 1], of N probabilities of outcome 1: the mean over bins
    of |mean probability - frequency of the outcome|. Guo et al. 2017 (1706.04599), equation 3."""
    bins = np.minimum((probabilities * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    return float(np.abs(np.bincount(bins, weights * (probabilities - outcomes))).sum() / weights.sum())
