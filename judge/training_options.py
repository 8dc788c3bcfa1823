"""The options of a judge's training, apart from the training, which needs torch."""

from dataclasses import dataclass

from judge.common.cli import LearningRate, PositiveInt, Weight


@dataclass(frozen=True)
class TrainingOptions:
    """Settings of a judge's training."""

    arch: str = "resnet18"
    """Name of a torchvision ResNet or RegNet."""
    weights: str = "imagenet"
    """Initial weights: `imagenet` (torchvision's pretrained), `none`, or a state-dict file."""
    epochs: PositiveInt = 60
    """Maximum number; an epoch has a view for each training image, equally many of each class."""
    patience: PositiveInt = 30
    """Stop after this many epochs without a lower held-out loss; the best epoch's weights are kept."""
    batch_size: PositiveInt = 32
    """Images per step."""
    lr: LearningRate = 1e-3
    """Peak learning rate of AdamW under a one-cycle schedule (Smith 2018, 1803.09820)."""
    weight_decay: Weight = 0.05
    """Weight decay of AdamW (Loshchilov and Hutter 2019, 1711.05101)."""
    two_classes: bool = False
    """Learn photographs and paintings only. By default there is a third class, images that are neither
    (`judge.corruptions`): a judge with two classes calls meaningless images paintings."""
    seed: int = 0
    """Random seed. On a CPU, equal seeds give equal judges; on a GPU, sums vary from run to run."""
