"""The report on priors: the features of its KID, and what it refuses."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from benchmarks import prior_report

TRUNK = Path(__file__).resolve().parents[3] / "shared" / "lpips" / "alexnet_features.pth"


@pytest.mark.skipif(not TRUNK.is_file(), reason="the weights of AlexNet (../shared/lpips) are not here")
def test_the_features_are_those_of_torchvision():
    """torchvision's AlexNet up to its last activation, on images with the mean and deviation of ImageNet."""
    from torchvision import models

    images = torch.randint(256, (2, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    network = models.alexnet(weights=None).features[:12].eval()
    network.load_state_dict({key.removeprefix("features."): value for key, value in torch.load(TRUNK, weights_only=True).items()})
    large = torch.nn.functional.interpolate(images.float() / 255, (224, 224), mode="bilinear", antialias=True)
    mean, deviation = (torch.tensor(values).view(3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.no_grad():
        expected = network((large - mean) / deviation).mean((2, 3))
        found = prior_report.AlexNet(str(TRUNK))(images)
    assert found.shape == (2, 256)
    torch.testing.assert_close(found, expected, rtol=2e-2, atol=2e-2)  # LPIPS rounds the mean and the deviation to two digits


def test_kid_of_less_than_two_samples_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["prior_report.py", "--prior", "OLD", "--kid", "FOLDER", "--samples", "1"])
    with pytest.raises(SystemExit) as stopped:
        prior_report.arguments()
    assert stopped.value.code == 2
    assert "KID needs at least two samples, got 1; set --samples" in capsys.readouterr().err
