"""A network with the cost of LaMa's generator: layers and sizes as described in the paper, random weights.

Suvorov et al., "Resolution-robust Large Mask Inpainting with Fourier Convolutions" (WACV 2022), section 2.1 and the
supplement: three halvings, residual blocks of fast Fourier convolutions at an eighth of the size, three doublings. It
fills holes with noise. Only its time and memory are meaningful. It runs in the environment `ocr`.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

GLOBAL_SHARE = 0.75  # share of the channels that go through the Fourier transform


def convolution(inside: int, outside: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inside, outside, kernel, stride, kernel // 2, bias=False, padding_mode="reflect")


def active(layer: nn.Module, channels: int) -> nn.Sequential:
    return nn.Sequential(layer, nn.BatchNorm2d(channels), nn.ReLU(True))


class Spectral(nn.Module):
    """A convolution of the Fourier transform: every output pixel depends on the entire image."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.narrow = active(convolution(channels, channels // 2, 1), channels // 2)
        self.mix = active(convolution(channels, channels, 1), channels)
        self.widen = convolution(channels // 2, channels, 1)

    def forward(self, image: Tensor) -> Tensor:
        image = self.narrow(image)
        spectrum = torch.fft.rfft2(image, norm="ortho")
        real, imaginary = self.mix(torch.cat([spectrum.real, spectrum.imag], 1)).chunk(2, 1)
        size = [image.size(2), image.size(3)]
        return self.widen(image + torch.fft.irfft2(torch.complex(real, imaginary), s=size, norm="ortho"))


class FourierConvolution(nn.Module):
    """Local and global channels, each computed from both."""

    def __init__(self, near: int, far: int) -> None:
        super().__init__()
        self.near = near
        self.near_to_near = convolution(near, near, 3)
        self.far_to_near = convolution(far, near, 3)
        self.near_to_far = convolution(near, far, 3)
        self.far_to_far = Spectral(far)
        self.near_out = active(nn.Identity(), near)
        self.far_out = active(nn.Identity(), far)

    def forward(self, image: Tensor) -> Tensor:
        near, far = image[:, : self.near], image[:, self.near :]
        return torch.cat(
            [
                self.near_out(self.near_to_near(near) + self.far_to_near(far)),
                self.far_out(self.near_to_far(near) + self.far_to_far(far)),
            ],
            1,
        )


class Block(nn.Module):
    def __init__(self, near: int, far: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(FourierConvolution(near, far), FourierConvolution(near, far))

    def forward(self, image: Tensor) -> Tensor:
        return image + self.layers(image)


class Generator(nn.Module):
    """Image N×3×H×W in 0..1 and mask N×1×H×W, 1 where to fill, to image N×3×H×W; H and W multiples of 8."""

    def __init__(self, channels: int, blocks: int) -> None:
        super().__init__()
        most = 8 * channels
        far = int(most * GLOBAL_SHARE)
        layers: list[nn.Module] = [active(convolution(4, channels, 7), channels)]
        for width in (channels, 2 * channels, 4 * channels):
            layers.append(active(convolution(width, 2 * width, 3, 2), 2 * width))
        layers += [Block(most - far, far) for _ in range(blocks)]
        for width in (8 * channels, 4 * channels, 2 * channels):
            layers.append(active(nn.ConvTranspose2d(width, width // 2, 3, 2, 1, 1, bias=False), width // 2))
        layers += [convolution(channels, 3, 7), nn.Sigmoid()]
        self.layers = nn.Sequential(*layers)

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        mask = mask.to(image.dtype)
        filled = self.layers(torch.cat([image * (1 - mask), mask], 1))
        return filled * mask + image * (1 - mask)


def write_network(path: Path, channels: int = 64, blocks: int = 18) -> int:
    """Write the network as TorchScript, and return its number of weights.

    Args:
        blocks: 9 is LaMa-Fourier of the paper's tables, 18 is Big LaMa.
    """
    torch.manual_seed(0)
    network = Generator(channels, blocks).eval()
    torch.jit.save(torch.jit.script(network), str(path))
    return sum(weights.numel() for weights in network.parameters())
