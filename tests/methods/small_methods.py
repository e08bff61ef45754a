"""What the tests of flows and methods share: small methods, drawn features, exact Jacobians."""

import torch
from FrEIA.framework import SequenceINN
from FrEIA.modules import AllInOneBlock
from torch.nn import functional as F

from labkit import methods
from labkit.core.records import Batch, Features, Shapes

SHAPES = Shapes((24, 40), ((6, 3, 5), (6, 2, 3)), token=8, patches=(15, 8), rotated=(4, 6))
UNTRAINED = {"knn", "padim", "patchcore", "rad"}  # no parameters
TRAINED = [name for name in methods.names() if name not in UNTRAINED]


def features(n=4, seed=0, shapes=SHAPES):
    """All that a backbone of these shapes can give, float64."""
    generator = torch.Generator().manual_seed(seed)
    whole = {"token": (shapes.token,), "patches": shapes.patches, "image": (3, *shapes.image)}
    sizes = {f"pyramid.{k}": level for k, level in enumerate(shapes.pyramid)}
    sizes |= {name: size for name, size in whole.items() if all(size)}
    sizes |= {"rotated": shapes.rotated} if all(shapes.rotated) else {}
    return Features.of(
        {
            name: torch.randn(n, *size, generator=generator, dtype=torch.float64)
            for name, size in sizes.items()
        }
    )


def batch(n=4, size=SHAPES.image):
    """The second half of the images has a defect in its upper left quarter."""
    mask = torch.zeros(n, *size)
    mask[n // 2 :, : size[0] // 2, : size[1] // 2] = 0.5
    return Batch(label=(torch.arange(n) >= n // 2).long(), defect_mask=mask)


def build(name, seed=0, **switches):
    """A tiny method in float64, its statistics taken from drawn features."""
    spec = methods.resolve(name, "x", "quick", seed, switches)
    torch.manual_seed(seed)
    method = methods.get(name)(spec.flow, SHAPES).double()
    method.fit_statistics([features(20, seed=9)])
    return method


def shaken(module, scale=0.3, seed=0):
    """Away from the start, where couplings may be the identity, scales 1 and offsets 0."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
        parameter.data.add_(scale * noise)
    return module


def small(kind, shapes, scale=0.3, **switches):
    """A method of a spec's defaults and these switches, float64, shaken."""
    torch.manual_seed(0)
    return shaken(kind(kind.Spec(**switches), shapes).double(), scale).eval()


def slogdet(function, x):
    """log |det| of the Jacobian of a function at x, all of whose entries count."""
    jacobian = torch.autograd.functional.jacobian(function, x)
    return torch.linalg.slogdet(jacobian.reshape(x.numel(), x.numel())).logabsdet


def images(values, size=SHAPES.image):
    """Values (B, h, w) at image resolution."""
    return F.interpolate(values[:, None], size, mode="bilinear")[:, 0]


def parameters(module):
    """How many numbers a module trains."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def freia_twin(steps, dims, cond=0):
    """Coupling, channel scale, permutation, ... as FrEIA's AllInOneBlocks with their weights."""
    twin, ones = SequenceINN(*dims), [1] * (len(dims) - 1)
    given = {"cond": 0, "cond_shape": (cond, *dims[1:])} if cond else {}
    for coupling, affine, permute in zip(steps[::3], steps[1::3], steps[2::3], strict=True):
        twin.append(
            AllInOneBlock,
            subnet_constructor=lambda a, b, net=coupling.subnet: net,
            affine_clamping=coupling.clamp,
            global_affine_type="SOFTPLUS",
            permute_soft=False,
            **given,
        )
        block = twin.module_list[-1].double()
        block.global_scale.data = affine.raw_scale.data.reshape(1, -1, *ones)
        block.global_offset.data = affine.offset.data.reshape(1, -1, *ones)
        order = torch.eye(dims[0], dtype=torch.float64)[permute.order]
        block.w_perm.data = order.reshape(dims[0], dims[0], *ones)
    return twin
