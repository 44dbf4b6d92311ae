"""Results in batches: every row in its place."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from generator.models.autoencoders.inference import encode
from generator.models.batched_rows import batched_rows, images_at_once


@pytest.mark.parametrize("count", [0, 1, 4, 5, 11])
def test_every_row_is_in_its_place(count: int) -> None:
    values_N2 = np.arange(2 * count, dtype=np.int32).reshape(count, 2)
    found_N2 = batched_rows(lambda rows: values_N2[rows] + 1, count, 4)
    assert found_N2.dtype == np.int32
    assert np.array_equal(found_N2, values_N2 + 1)


@pytest.mark.parametrize(
    ("shape_HWC", "most", "expected"),
    [
        ((32, 32, 3), 1000, 1000),
        ((64, 64, 1), 1000, 256),
        ((64, 64, 3), 250, 250),
        ((48, 96, 3), 1000, 227),
        ((512, 512, 3), 250, 4),
        ((2048, 1024, 3), 512, 1),
    ],
)
def test_large_images_go_through_a_network_in_smaller_batches(
    shape_HWC: tuple[int, ...], most: int, expected: int
) -> None:
    assert images_at_once(shape_HWC, most) == expected


class Mean(nn.Module):
    """The mean of an image as its code; ``batches`` keeps how many images it was given each time."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.batches = nn.Parameter(torch.ones(1)), list[int]()

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        self.batches.append(len(x_BCHW))
        return self.weight * x_BCHW.mean(dim=(1, 2, 3))[:, None]


def test_an_encoder_is_given_few_large_images_at_a_time() -> None:
    encoder, images_NHWC = Mean(), np.arange(5, dtype=np.uint8).repeat(512 * 512).reshape(5, 512, 512, 1)
    codes_ND = encode(encoder, images_NHWC)
    assert encoder.batches == [4, 1]
    np.testing.assert_allclose(codes_ND[:, 0], np.arange(5) / 255, atol=1e-6)
