import pytest
import torch

from trials.parts.losses import bce, gradient_penalty, lsgan


@pytest.mark.parametrize("loss, outputs, real, fake", [
    (lsgan, [0.0, 1.0, 3.0, -1.0], (1 + 0 + 4 + 4) / 4, (0 + 1 + 9 + 1) / 4),  # squared distances to 1, to 0
    (bce, [0.0, 2.0], (0.693147 + 0.126928) / 2, (0.693147 + 2.126928) / 2),  # -log of 0.5 and 0.88
])
def test_losses_are_the_means_of_the_papers_terms(loss, outputs, real, fake):
    assert loss(torch.tensor(outputs), real=True).item() == pytest.approx(real, abs=1e-5)
    assert loss(torch.tensor(outputs), real=False).item() == pytest.approx(fake, abs=1e-5)


def test_the_gradient_penalty_is_taken_between_real_and_fake_image_by_image():
    """f(x) = |x|^2 / 2 has the gradient x: that of each image is at its own share of the way."""
    real, fake = torch.full((2, 1, 1, 1), 3.0), torch.full((2, 1, 1, 1), -1.0)
    share = torch.tensor([1.0, 0.75]).reshape(2, 1, 1, 1)  # at 3 and at 2
    penalty = gradient_penalty(lambda x: x.square() / 2, real, fake, share)
    assert penalty.item() == pytest.approx(((3 - 1) ** 2 + (2 - 1) ** 2) / 2)


def test_the_gradient_penalty_adds_up_the_patches_of_an_image_and_trains_the_critic_alone():
    """a x.mean() for each of 9 patches has the gradient 9 a / 2 in 2 pixels, of length s a, s = 9 / sqrt(2):
    the penalty (s a - 1)^2 has the slope 2 (s a - 1) s in a."""
    fake, slope = torch.zeros(1, 1, 1, 2, requires_grad=True), 9 * 0.5**0.5
    critic = torch.ones(1, requires_grad=True)
    penalty = gradient_penalty(lambda x: critic * x.mean().expand(1, 1, 3, 3), torch.ones(1, 1, 1, 2), fake,
                               torch.full((1, 1, 1, 1), 0.5))  # fmt: skip
    assert penalty.item() == pytest.approx((slope - 1) ** 2)
    penalty.backward()
    assert fake.grad is None and critic.grad.item() == pytest.approx(2 * (slope - 1) * slope)
