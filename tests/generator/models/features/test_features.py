"""The small classifier, and the augmentation of its training images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from generator.errors import SourceError
from generator.models.autoencoders.augment import augment, augmented_copies
from generator.models.autoencoders.augmentation import Augmentation
from generator.models.autoencoders.networks import to_input
from generator.models.features.classifier import Classifier, LabelledImages, accuracy, train_classifier
from generator.models.features.config import Budget
from generator.models.features.extractors import classifier_features
from generator.sources import load_source

BUDGET = Budget(steps=60, batch=64)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def digits() -> tuple[LabelledImages, LabelledImages]:
    source = load_source("digits")
    assert source.labels_N is not None
    images_NHWC, labels_N = source.images_NHWC, source.labels_N
    return LabelledImages(images_NHWC[:1400], labels_N[:1400]), LabelledImages(images_NHWC[1400:], labels_N[1400:])


def train(data: LabelledImages, budget: Budget = BUDGET, seed: int = 0, **options: object) -> Classifier:
    return train_classifier(data.images_NHWC, data.labels_N, classes=10, seed=seed, budget=budget, **options)  # type: ignore[arg-type]


def weights(classifier: Classifier) -> bytes:
    return b"".join(value.numpy().tobytes() for value in classifier.state_dict().values())


@pytest.mark.slow
def test_it_learns_is_frozen_and_depends_on_the_seed_alone(digits: tuple[LabelledImages, LabelledImages]) -> None:
    data, test = digits
    classifier = train(data)
    assert accuracy(classifier, test) > 0.85
    assert not classifier.training
    assert not any(weight.requires_grad for weight in classifier.parameters())
    torch.manual_seed(99)
    assert weights(train(data)) == weights(classifier)
    assert weights(train(data, seed=1)) != weights(classifier)


def test_training_leaves_the_global_generator_alone(digits: tuple[LabelledImages, LabelledImages]) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    train(digits[0], Budget(steps=2, batch=16, augmentation=Augmentation(shift=1, rotation=5.0, elastic=0.5)))
    assert torch.equal(torch.get_rng_state(), before)


def test_features_are_what_the_last_layer_sees_and_maps_carry_gradients(
    digits: tuple[LabelledImages, LabelledImages],
) -> None:
    data, _ = digits
    classifier = train(data, Budget(steps=5, batch=16))
    x_BCHW = to_input(data.images_NHWC[:7], torch.device("cpu")).requires_grad_()
    maps = classifier.maps(x_BCHW)
    assert [tuple(each.shape) for each in maps] == [(7, 16, 4, 4), (7, 32, 2, 2), (7, 64, 1, 1)]
    torch.testing.assert_close(classifier.head(classifier.features(x_BCHW)), classifier(x_BCHW))
    maps[0].sum().backward()
    assert x_BCHW.grad is not None
    assert x_BCHW.grad.abs().sum() > 0
    expected = classifier.features(x_BCHW).detach().numpy()
    np.testing.assert_allclose(classifier_features(classifier)(data.images_NHWC[:7]), expected, rtol=1e-5)


def test_a_wide_one_has_more_maps_and_the_default_is_sixteen(digits: tuple[LabelledImages, LabelledImages]) -> None:
    data, budget = digits[0], Budget(steps=2, batch=16)
    assert train(data, budget, width=24).head.in_features == 96
    assert weights(train(data, budget, width=16)) == weights(train(data, budget))


@pytest.mark.slow
def test_the_second_set_is_learned_in_the_same_number_of_steps(digits: tuple[LabelledImages, LabelledImages]) -> None:
    """The first set has only images of ones, the second set has all digits."""
    data, test = digits
    ones = np.flatnonzero(data.labels_N == 1)[:10]
    few = LabelledImages(data.images_NHWC[ones], data.labels_N[ones])
    assert accuracy(train(few), test) < 0.2
    assert accuracy(train(few, extra=data, share=0.5), test) > 0.7


@pytest.mark.slow
def test_probabilities_are_learned_instead_of_the_labels(digits: tuple[LabelledImages, LabelledImages]) -> None:
    data, test = digits
    sure_NC = np.eye(10, dtype=np.float32)[data.labels_N]
    wrong = LabelledImages(data.images_NHWC, (data.labels_N + 1) % 10, sure_NC)
    few = LabelledImages(data.images_NHWC[:10], data.labels_N[:10])
    assert accuracy(train(few, extra=wrong, share=0.9), test) > 0.7
    assert accuracy(train(wrong, probability_NC=sure_NC), test) > 0.85
    half_NC = 0.5 * sure_NC + 0.05
    target_NC = train(data, probability_NC=half_NC)(to_input(test.images_NHWC, torch.device("cpu"))).softmax(1)
    assert abs(float(target_NC.amax(1).mean()) - 0.55) < 0.1


def test_probabilities_that_do_not_fit_are_refused(digits: tuple[LabelledImages, LabelledImages]) -> None:
    data, _ = digits
    even_NC = np.full((len(data), 10), 0.1, dtype=np.float32)
    for probability_NC in (even_NC[:-1], even_NC.astype(np.float64), 2.0 * even_NC, -even_NC):
        with pytest.raises(SourceError, match="probability"):
            train(data, probability_NC=probability_NC)


def test_images_that_do_not_fit_are_refused(digits: tuple[LabelledImages, LabelledImages]) -> None:
    data, _ = digits
    for labels_N in (data.labels_N[:-1], data.labels_N + 1, data.labels_N.astype(np.int32)):
        with pytest.raises(SourceError, match="labels"):
            train(LabelledImages(data.images_NHWC, labels_N))
    with pytest.raises(SourceError, match="images"):
        train(LabelledImages(data.images_NHWC / 255.0, data.labels_N))
    with pytest.raises(SourceError, match="images"):
        train(data, extra=LabelledImages(np.zeros((3, 16, 16, 1), np.uint8), np.zeros(3, np.int64)))


def ramp(count: int = 64, size: int = 16) -> torch.Tensor:
    """Images of a smooth hill in the middle."""
    place = torch.arange(size) - (size - 1) / 2
    hill_HW = torch.exp(-(place[:, None] ** 2 / 20 + place**2 / 6))
    return hill_HW.expand(count, 1, size, size).contiguous()


def test_no_augmentation_changes_nothing() -> None:
    x_BCHW = ramp()
    assert torch.equal(augment(x_BCHW, Augmentation(), seed=0, step=0), x_BCHW)
    images_NHWC = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    twice_NHWC = augmented_copies(images_NHWC, Augmentation(), copies=2, seed=0, batch=2)
    np.testing.assert_array_equal(twice_NHWC, np.concatenate([images_NHWC, images_NHWC]))


def test_every_copy_is_changed_anew_and_all_alike_again() -> None:
    images_NHWC = (ramp(6) * 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()
    made = [augmented_copies(images_NHWC, Augmentation(rotation=30.0), copies=2, seed=1, batch=4) for _ in range(2)]
    np.testing.assert_array_equal(*made)
    assert len(np.unique(made[0].reshape(12, -1), axis=0)) == 12


@pytest.mark.parametrize(
    "augmentation",
    [
        Augmentation(shift=2),
        Augmentation(rotation=20.0),
        Augmentation(scale=0.2),
        Augmentation(shear=15.0),
        Augmentation(elastic=1.0),
    ],
)
def test_changes_depend_on_seed_and_step_alone(augmentation: Augmentation) -> None:
    x_BCHW = ramp()
    changed = augment(x_BCHW, augmentation, seed=1, step=2)
    torch.rand(3)
    assert torch.equal(augment(x_BCHW, augmentation, seed=1, step=2), changed)
    assert not torch.equal(augment(x_BCHW, augmentation, seed=1, step=3), changed)
    assert not torch.equal(augment(x_BCHW, augmentation, seed=2, step=2), changed)
    assert not torch.equal(changed[0], changed[1])
    assert float(changed.min()) >= 0.0
    assert float(changed.max()) <= 1.0 + 1e-6


def test_shifts_are_whole_pixels_and_reach_all_places() -> None:
    image_HW = torch.zeros(16, 16)
    image_HW[8, 8] = 1.0
    changed = augment(image_HW.expand(500, 1, 16, 16).contiguous(), Augmentation(shift=2), seed=0, step=0)
    places = {tuple(place) for place in changed[:, 0].nonzero()[:, 1:].tolist()}
    assert places == {(row, column) for row in range(6, 11) for column in range(6, 11)}


def test_rotation_about_the_centre_keeps_mass_and_turns() -> None:
    x_BCHW = ramp(256)
    turned = augment(x_BCHW, Augmentation(rotation=180.0), seed=0, step=0)
    torch.testing.assert_close(turned.sum((1, 2, 3)), x_BCHW.sum((1, 2, 3)), rtol=0.03, atol=0.0)
    lying = (turned.sum(2).std(2) < turned.sum(3).std(2)).float().mean()  # the original hill is higher than wide
    assert 0.3 < float(lying) < 0.7


def test_elastic_displacement_has_the_asked_size_everywhere() -> None:
    """An image with a slope of one per pixel shows how far each pixel was moved."""
    slope_HW = torch.arange(32.0).expand(32, 32) / 100
    changed = augment(slope_HW.expand(400, 1, 32, 32).contiguous(), Augmentation(elastic=1.0), seed=0, step=0)
    moved = (changed[:, 0] - slope_HW)[:, :, 8:24] * 100
    assert torch.all((moved.std(0) - 1.0).abs() < 0.2)


def test_oblong_images_are_turned_and_sheared_in_pixels() -> None:
    """What happens in the middle of a wide or high image is what happens to the square in its middle."""
    square_BCHW = torch.zeros(20, 1, 24, 24)
    square_BCHW[:, :, 7:15, 9:19] = torch.rand(1, 1, 8, 10)
    augmentation = Augmentation(rotation=90.0, shear=20.0, scale=0.2)
    wanted_BCHW = augment(square_BCHW, augmentation, seed=4, step=2)
    for sides in ((12, 12, 0, 0), (0, 0, 12, 12)):
        found_BCHW = augment(functional.pad(square_BCHW, sides), augmentation, seed=4, step=2)
        left, _, top, _ = sides
        middle_BCHW = found_BCHW[:, :, top : top + 24, left : left + 24]
        torch.testing.assert_close(middle_BCHW, wanted_BCHW, rtol=0.0, atol=1e-4)


@pytest.mark.parametrize("axis", [2, 3])
def test_elastic_displacement_of_oblong_images_is_in_pixels(axis: int) -> None:
    slope_BCHW = torch.arange(64.0)[:, None] / 100 if axis == 2 else torch.arange(24.0) / 100
    x_BCHW = slope_BCHW.expand(400, 1, 64, 24).contiguous()
    changed = augment(x_BCHW, Augmentation(elastic=1.0), seed=0, step=0)
    moved = (changed - x_BCHW).narrow(axis, 8, x_BCHW.shape[axis] - 16) * 100
    assert torch.all((moved.std(0) - 1.0).abs() < 0.2)


def test_shifts_of_oblong_images_reach_all_places() -> None:
    image_HW = torch.zeros(8, 20)
    image_HW[4, 16] = 1.0
    changed = augment(image_HW.expand(500, 1, 8, 20).contiguous(), Augmentation(shift=2), seed=0, step=0)
    places = {tuple(place) for place in changed[:, 0].nonzero()[:, 1:].tolist()}
    assert places == {(row, column) for row in range(2, 7) for column in range(14, 19)}


def test_a_classifier_of_oblong_images() -> None:
    rng = np.random.default_rng(0)
    images_NHWC, labels_N = rng.integers(0, 256, (40, 28, 50, 3), dtype=np.uint8), np.arange(40) % 2
    trained = train_classifier(images_NHWC, labels_N, classes=2, seed=0, budget=Budget(steps=2, batch=16))
    assert classifier_features(trained)(images_NHWC).shape == (40, 4 * 16 * 3 * 6)
    assert [tuple(found.shape[2:]) for found in trained.maps(to_input(images_NHWC, torch.device("cpu")))] == [
        (14, 25),
        (7, 12),
        (3, 6),
    ]
    with pytest.raises(SourceError, match="8 pixels a side"):
        train_classifier(images_NHWC[:, :, :7], labels_N, classes=2, seed=0, budget=Budget(steps=2, batch=16))


def test_mirror_images_are_half() -> None:
    x_BCHW = torch.rand(1, 1, 8, 8).expand(400, 1, 8, 8).contiguous()
    changed = augment(x_BCHW, Augmentation(mirror=True), seed=0, step=0)
    mirrored = (changed == x_BCHW.flip(3)).flatten(1).all(1)
    assert torch.all(mirrored | (changed == x_BCHW).flatten(1).all(1))
    assert 140 < int(mirrored.sum()) < 260
