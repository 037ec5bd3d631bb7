"""CLIPs with random weights, and checkpoint files of them in OpenAI's layouts.

Official weights are hundreds of megabytes and need the internet. These have tensors of the same
names, shapes and precisions, and tell one picture from another as trained ones do. The same seed
gives the same weights, whatever was drawn before.
"""

import copy
import warnings
from collections.abc import Callable
from functools import cache, wraps
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # clip imports pkg_resources, which is deprecated
    from clip.model import CLIP, ModifiedResNet, convert_weights


def _drawn_once(make: Callable[[int], CLIP]) -> Callable[..., CLIP]:
    """Draw the weights for each seed once in a process; every caller gets a copy."""
    drawn = cache(make)

    @wraps(make)
    def copied(seed: int = 0) -> CLIP:
        return copy.deepcopy(drawn(seed))

    return copied


def vit_b_32(seed: int = 0) -> CLIP:
    """The size of OpenAI's ViT-B/32: 224 pixels to 512 features, 77 tokens."""
    return _random(lambda: CLIP(512, 224, 12, 768, 32, 77, 49408, 512, 8, 12), seed)


def resnet_50(seed: int = 0) -> CLIP:
    """The size of OpenAI's RN50: 224 pixels to 1024 features, 77 tokens."""
    return _random(lambda: CLIP(1024, 224, (3, 4, 6, 3), 64, None, 77, 49408, 512, 8, 12), seed)


def wide_vit(seed: int = 0) -> CLIP:
    """As wide as OpenAI's ViT-B/32, with three of its twelve layers and a small text encoder."""
    return _random(lambda: CLIP(512, 224, 3, 768, 32, 77, 49408, 64, 1, 1), seed)


@_drawn_once
def small_vit(seed: int = 0) -> CLIP:
    """40 pixels (5 x 5 patches of 8) to 48 features, 20 tokens."""
    return _random(lambda: CLIP(48, 40, 2, 64, 8, 20, 49408, 64, 1, 2), seed)


@_drawn_once
def small_resnet(seed: int = 0) -> CLIP:
    """96 pixels to 80 features, 14 tokens."""
    return _random(lambda: CLIP(80, 96, (1, 2, 1, 1), 16, None, 14, 49408, 64, 1, 2), seed)


def save_state_dict(model: CLIP, path: Path) -> Path:
    """Write the plain tensors, as ``torch.save`` does, and give the path back."""
    torch.save(model.state_dict(), path)
    return path


def save_torchscript(model: CLIP, path: Path) -> Path:
    """Write a TorchScript archive as OpenAI publishes them and give the path back.

    Its state dict holds three numbers that the model's own does not, as theirs do. Of its code
    only ``encode_image`` is there.
    """
    n_px = model.visual.input_resolution
    numbers = {
        "input_resolution": n_px,
        "context_length": model.context_length,
        "vocab_size": model.vocab_size,
    }
    published = copy.deepcopy(model)
    for name, number in numbers.items():
        vars(published).pop(name, None)
        published.register_buffer(name, torch.tensor(number))
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # torch.jit is deprecated, but OpenAI's files stay
        picture = {"encode_image": torch.zeros(1, 3, n_px, n_px)}
        torch.jit.trace_module(published, picture, check_trace=False).save(str(path))
    return path


def _random(make: Callable[[], CLIP], seed: int) -> CLIP:
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = make().eval()
        if isinstance(model.visual, ModifiedResNet):
            _settle(model.visual)
    convert_weights(model)
    return model


def _settle(resnet: ModifiedResNet) -> None:
    """Draw the batch normalisations and give them statistics that fit the other weights.

    As they are built, OpenAI's residual blocks add nothing (``bn3.weight`` is zero), and without
    statistics every picture gets almost the same features.
    """
    norms = [module for module in resnet.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.weight.uniform_(0.5, 1.5)
        norm.bias.normal_(std=0.3)
        norm.momentum = 1.0  # keep the statistics of the one batch below, and nothing else
    pooling, resnet.attnpool = resnet.attnpool, nn.Identity()  # it takes one size only
    resnet.train()(F.interpolate(torch.randn(16, 3, 5, 5), size=96))
    resnet.attnpool = pooling
    resnet.eval()
