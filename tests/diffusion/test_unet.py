"""The UNet: its keys follow guided-diffusion's rules, its values the block equations. Both are written here a second time.

`plan` lists the blocks that a set of flags asks for. `expected_shapes` turns that list into keys and shapes. `reference`
evaluates it with plain tensor algebra on a flat state dict.
"""

from itertools import product
from math import prod, sqrt

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from diffusion_priors.diffusion.networks.unet import GroupNorm32, UNet, timestep_embedding

FFHQ = {
    "image_size": 256,
    "in_channels": 3,
    "num_channels": 128,
    "channel_mult": (1, 1, 2, 2, 4, 4),
    "num_res_blocks": 1,
    "attention_resolutions": (16,),
    "num_heads": 4,
    "num_head_channels": 64,
    "resblock_updown": True,
    "use_scale_shift_norm": True,
    "new_attention_order": False,
    "learn_sigma": True,
    "max_groups": 32,
    "min_group_channels": 1,
}
SMALL = FFHQ | {"image_size": 16, "num_channels": 32, "channel_mult": (1, 2), "attention_resolutions": (8,), "num_head_channels": 16}
SWITCHES = ("resblock_updown", "use_scale_shift_norm", "new_attention_order", "learn_sigma")


# The rules


def plan(flags: dict) -> dict[str, list[list[tuple[str, int, int]]]]:
    """(kind, channels in, channels out) of every block of every stage."""
    widths = [int(mult * flags["num_channels"]) for mult in flags["channel_mult"]]
    last = len(widths) - 1
    sides = [flags["image_size"] // 2**level for level in range(len(widths))]
    attended = [side in flags["attention_resolutions"] for side in sides]
    down, up = ("res down", "res up") if flags["resblock_updown"] else ("down", "up")

    stages, ch = [[("conv", flags["in_channels"], widths[0])]], widths[0]
    for level, width in enumerate(widths):
        for _ in range(flags["num_res_blocks"]):
            stages.append([("res", ch, width)] + [("attention", width, width)] * attended[level])
            ch = width
        if level < last:
            stages.append([(down, ch, ch)])
    middle = [("res", ch, ch), ("attention", ch, ch), ("res", ch, ch)]

    waiting = [stage[-1][2] for stage in stages]
    output = []
    for level in range(last, -1, -1):
        for i in range(flags["num_res_blocks"] + 1):
            stage = [("res", ch + waiting.pop(), widths[level])] + [("attention", widths[level], widths[level])] * attended[level]
            ch = widths[level]
            if level > 0 and i == flags["num_res_blocks"]:
                stage.append((up, ch, ch))
            output.append(stage)
    return {"input_blocks": stages, "middle_block": [middle], "output_blocks": output}


def named_blocks(flags: dict):
    """(key prefix, kind, channels in, channels out) of every block."""
    for part, stages in plan(flags).items():
        for i, stage in enumerate(stages):
            for j, block in enumerate(stage):
                yield (f"{part}.{j}" if part == "middle_block" else f"{part}.{i}.{j}"), *block


def expected_shapes(flags: dict) -> dict[str, tuple[int, ...]]:
    base = flags["num_channels"]
    embed = 4 * base
    weights = {"time_embed.0": (embed, base), "time_embed.2": (embed, embed)}
    scales = []
    for name, kind, cin, cout in named_blocks(flags):
        if kind == "conv":
            weights[name] = (cout, cin, 3, 3)
        elif kind == "down":
            weights[f"{name}.op"] = (cout, cin, 3, 3)
        elif kind == "up":
            weights[f"{name}.conv"] = (cout, cin, 3, 3)
        elif kind == "attention":
            scales.append((f"{name}.norm", cin))
            weights |= {f"{name}.qkv": (3 * cin, cin, 1), f"{name}.proj_out": (cin, cin, 1)}
        else:
            scales += [(f"{name}.in_layers.0", cin), (f"{name}.out_layers.0", cout)]
            weights |= {f"{name}.in_layers.2": (cout, cin, 3, 3), f"{name}.out_layers.3": (cout, cout, 3, 3)}
            weights[f"{name}.emb_layers.1"] = (2 * cout if flags["use_scale_shift_norm"] else cout, embed)
            if cin != cout:
                weights[f"{name}.skip_connection"] = (cout, cin, 1, 1)
    first = int(flags["channel_mult"][0] * base)
    scales.append(("out.0", first))
    weights["out.2"] = (flags["in_channels"] * (2 if flags["learn_sigma"] else 1), first, 3, 3)
    weights |= {name: (channels,) for name, channels in scales}
    return {f"{name}.weight": shape for name, shape in weights.items()} | {f"{name}.bias": shape[:1] for name, shape in weights.items()}


# The equations


def silu(x):
    return x / (1 + torch.exp(-x))


def embedding(t: torch.Tensor, channels: int) -> torch.Tensor:
    half = channels // 2
    angles = [[float(one) * 10000.0 ** (-i / half) for i in range(half)] for one in t]
    angles = torch.tensor(angles, dtype=torch.float64)
    return torch.cat([torch.cos(angles), torch.sin(angles)], dim=1)


def reference(state: dict[str, torch.Tensor], x: torch.Tensor, t: torch.Tensor, flags: dict) -> torch.Tensor:
    def affine(name, x):
        return x @ state[f"{name}.weight"].flatten(1).T + state[f"{name}.bias"]

    def conv(name, x, stride=1):
        weight = state[f"{name}.weight"]
        return F.conv2d(x, weight, state[f"{name}.bias"], stride=stride, padding=weight.shape[-1] // 2)

    def norm(name, x):
        groups = int(min(flags["max_groups"], x.shape[1] / flags["min_group_channels"]))
        grouped = x.reshape(len(x), groups, -1)
        centred = grouped - grouped.mean(dim=2, keepdim=True)
        whitened = (centred / (centred.square().mean(dim=2, keepdim=True) + 1e-5).sqrt()).reshape(x.shape)
        broadcast = (1, -1) + (1,) * (x.ndim - 2)
        return whitened * state[f"{name}.weight"].reshape(broadcast) + state[f"{name}.bias"].reshape(broadcast)

    def halved(x):
        return (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4

    def doubled(x):
        return x.repeat_interleave(2, dim=-1).repeat_interleave(2, dim=-2)

    def residual(name, x, emb, resample=lambda x: x):
        h = conv(f"{name}.in_layers.2", resample(silu(norm(f"{name}.in_layers.0", x))))
        x = resample(x)
        modulation = affine(f"{name}.emb_layers.1", silu(emb))[:, :, None, None]
        if flags["use_scale_shift_norm"]:
            scale, shift = modulation[:, : h.shape[1]], modulation[:, h.shape[1] :]
            h = norm(f"{name}.out_layers.0", h) * (1 + scale) + shift
        else:
            h = norm(f"{name}.out_layers.0", h + modulation)
        h = conv(f"{name}.out_layers.3", silu(h))
        return h + (conv(f"{name}.skip_connection", x) if f"{name}.skip_connection.weight" in state else x)

    def attention(name, x):
        channels = x.shape[1]
        heads = flags["num_heads"] if flags["num_head_channels"] == -1 else channels // flags["num_head_channels"]
        d = channels // heads
        qkv = affine(f"{name}.qkv", norm(f"{name}.norm", x.flatten(2)).mT)
        mixed = []
        for head in range(heads):
            if flags["new_attention_order"]:
                starts = [part * channels + head * d for part in range(3)]
            else:
                starts = [head * 3 * d + part * d for part in range(3)]
            q, k, v = (qkv[..., start : start + d] for start in starts)
            weight = torch.exp(q @ k.mT / sqrt(d))
            mixed.append(weight / weight.sum(dim=-1, keepdim=True) @ v)
        return x + affine(f"{name}.proj_out", torch.cat(mixed, dim=-1)).mT.reshape(x.shape)

    def run(name, kind, x, emb):
        match kind:
            case "conv":
                return conv(name, x)
            case "down":
                return conv(f"{name}.op", x, stride=2)
            case "up":
                return conv(f"{name}.conv", doubled(x))
            case "attention":
                return attention(name, x)
            case _:
                return residual(name, x, emb, {"res": lambda x: x, "res down": halved, "res up": doubled}[kind])

    emb = affine("time_embed.2", silu(affine("time_embed.0", embedding(t, flags["num_channels"]))))
    stages = plan(flags)
    kept = []
    for i, stage in enumerate(stages["input_blocks"]):
        for j, (kind, *_) in enumerate(stage):
            x = run(f"input_blocks.{i}.{j}", kind, x, emb)
        kept.append(x)
    for j, (kind, *_) in enumerate(stages["middle_block"][0]):
        x = run(f"middle_block.{j}", kind, x, emb)
    for i, stage in enumerate(stages["output_blocks"]):
        x = torch.cat([x, kept.pop()], dim=1)
        for j, (kind, *_) in enumerate(stage):
            x = run(f"output_blocks.{i}.{j}", kind, x, emb)
    return conv("out.2", silu(norm("out.0", x)))


# Networks to try


def exact_embedding(network: UNet) -> None:
    """Give `network` the embedding of t in double precision, so that a comparison sees the blocks alone."""

    def remember(module, args):
        network.last_t = args[1]

    network.register_forward_pre_hook(remember)
    network.time_embed.register_forward_pre_hook(lambda module, args: (embedding(network.last_t, network.num_channels),))


def randomised(**flags) -> UNet:
    """A network whose tensors are neither zero nor one, with activations of the order of one."""
    network = UNet(**(SMALL | flags)).eval()
    generator = torch.Generator().manual_seed(0)
    for name, tensor in network.state_dict().items():
        noise = torch.randn(tensor.shape, generator=generator)
        if tensor.ndim > 1:
            tensor.copy_(noise / sqrt(prod(tensor.shape[1:])))
        else:
            tensor.copy_(0.3 * noise + (1.0 if name.endswith("weight") else 0.0))
    return network.requires_grad_(False)


def randomised_double(**flags) -> UNet:
    network = randomised(**flags).double()
    exact_embedding(network)
    return network


def image(*shape: int, dtype=torch.float64) -> torch.Tensor:
    return torch.randn(*(shape or (2, 3, 16, 16)), dtype=dtype, generator=torch.Generator().manual_seed(1))


T = torch.tensor([7, 801])


# Keys


def shapes(**flags) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in UNet(**flags).state_dict().items()}


def test_the_defaults_are_the_ffhq_checkpoint_s_tensor_for_tensor():
    found = shapes()
    assert found == expected_shapes(FFHQ)
    assert len(found) == 362
    assert sum(map(prod, found.values())) == 93_563_910


def test_single_keys_of_the_ffhq_checkpoint():
    """These keys were read in the file itself. They tie the rules above to it."""
    found = shapes()
    assert found["input_blocks.0.0.weight"] == (128, 3, 3, 3)
    attended = {name.removesuffix(".qkv.weight") for name in found if name.endswith("qkv.weight")}
    assert attended == {"input_blocks.9.1", "middle_block.1", "output_blocks.2.1", "output_blocks.3.1"}
    for name in attended:
        assert {key.removeprefix(f"{name}.").split(".")[0] for key in found if key.startswith(f"{name}.")} == {"norm", "qkv", "proj_out"}
        assert found[f"{name}.qkv.weight"] == (1536, 512, 1)
    last = [max(int(key.split(".")[2]) for key in found if key.startswith(f"output_blocks.{i}.")) for i in range(12)]
    assert [i for i in range(12) if f"output_blocks.{i}.{last[i]}.in_layers.0.weight" in found and last[i] > 0] == [1, 3, 5, 7, 9]
    layers_found = {key.split(".", 3)[3].rsplit(".", 1)[0] for key in found if key.startswith("input_blocks.") and key.split(".")[2] == "0"}
    layers = {"in_layers.0", "in_layers.2", "emb_layers.1", "out_layers.0", "out_layers.3", "skip_connection"}
    assert layers_found - {"weight", "bias"} == layers
    assert {key for key in found if key.startswith("time_embed")} == {f"time_embed.{i}.{p}" for i in (0, 2) for p in ("weight", "bias")}
    assert found["out.0.weight"] == (128,)
    assert found["out.2.weight"] == (6, 128, 3, 3)


def test_the_imagenet_256_checkpoint():
    flags = {"num_channels": 256, "num_res_blocks": 2, "attention_resolutions": (32, 16, 8)}
    found = shapes(**flags)
    assert found == expected_shapes(FFHQ | flags)
    assert len(found) == 566
    assert sum(map(prod, found.values())) == 552_814_086


PUBLISHED = {  # flags of other published networks of this family
    "imagenet64": {
        "image_size": 64,
        "num_channels": 192,
        "num_res_blocks": 3,
        "channel_mult": (1, 2, 3, 4),
        "attention_resolutions": (32, 16, 8),
        "new_attention_order": True,
    },
    "imagenet128": {
        "image_size": 128,
        "num_channels": 256,
        "num_res_blocks": 2,
        "channel_mult": (1, 1, 2, 3, 4),
        "attention_resolutions": (32, 16, 8),
        "num_head_channels": -1,
    },
    "imagenet512": {
        "image_size": 512,
        "num_channels": 256,
        "num_res_blocks": 2,
        "channel_mult": (0.5, 1, 1, 2, 2, 4, 4),
        "attention_resolutions": (32, 16, 8),
    },
    "small": SMALL,
}


@pytest.mark.parametrize("switches", list(product([True, False], repeat=3)), ids=str)
@pytest.mark.parametrize("flags", PUBLISHED.values(), ids=PUBLISHED)
def test_every_key_and_shape_follows_from_the_flags(flags, switches):
    updown, scale_shift, sigma = switches
    flags = FFHQ | flags | {"resblock_updown": updown, "use_scale_shift_norm": scale_shift, "learn_sigma": sigma}
    assert shapes(**flags) == expected_shapes(flags)


# Values


@pytest.mark.parametrize("switches", list(product([True, False], repeat=4)), ids=str)
def test_the_network_computes_the_block_equations(switches):
    flags = SMALL | dict(zip(SWITCHES, switches, strict=True))
    network = randomised_double(**flags)
    expected = reference(network.state_dict(), image(), T, flags)
    assert 0.1 < expected.std() < 10
    torch.testing.assert_close(network(image(), T), expected, rtol=1e-10, atol=1e-10)


VARIANTS = {
    "float channel_mult": {"num_channels": 64, "channel_mult": (0.5, 1)},
    "heads by number": {"num_head_channels": -1, "num_heads": 4},
    "heads by number, new order": {"num_head_channels": -1, "num_heads": 8, "new_attention_order": True},
    "two blocks, attention at two levels": {"num_res_blocks": 2, "attention_resolutions": (16, 8)},
    "three levels": {"channel_mult": (1, 1, 2), "attention_resolutions": (4,)},
    "one level": {"channel_mult": (1,), "attention_resolutions": ()},
    "wide groups": {"min_group_channels": 4},
    "few groups": {"max_groups": 8},
    "grey": {"in_channels": 1},
}


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_the_block_equations_hold_for_other_flags(variant):
    flags = SMALL | variant
    network = randomised_double(**variant)
    assert {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()} == expected_shapes(flags)
    x = image(2, flags["in_channels"], 16, 16)
    torch.testing.assert_close(network(x, T), reference(network.state_dict(), x, T, flags), rtol=1e-10, atol=1e-10)


def test_the_block_equations_hold_at_other_sizes():
    """Where attention sits is fixed by image_size; the image may be of another size, and need not be square."""
    network, x = randomised_double(), image(1, 3, 8, 12)
    torch.testing.assert_close(network(x, T[:1]), reference(network.state_dict(), x, T[:1], SMALL), rtol=1e-10, atol=1e-10)


def test_single_precision_adds_rounding_errors_only():
    """The whole network as it is run, with its float32 embedding: a relative error of some hundred float32 roundings."""
    network = randomised()
    x = image(dtype=torch.float32)
    found = network(x, T).double()
    expected = reference({name: tensor.double() for name, tensor in network.state_dict().items()}, x.double(), T, SMALL)
    assert (found - expected).norm() / expected.norm() < 500 * 2.0**-24


def test_qkv_orders_differ():
    """Otherwise the tests above could not distinguish them."""
    legacy, new = (randomised(new_attention_order=order) for order in (False, True))
    assert all(torch.equal(a, b) for a, b in zip(legacy.state_dict().values(), new.state_dict().values(), strict=True))
    x = image(dtype=torch.float32)
    assert (legacy(x, T) - new(x, T)).norm() / legacy(x, T).norm() > 1e-2


def test_a_new_network_returns_zero():
    """Its last convolution starts at zero, and so does the last layer of every residual branch."""
    network = UNet(**SMALL).eval()
    assert network(image(dtype=torch.float32), T).count_nonzero() == 0


def test_dropout_acts_in_training_mode_only():
    x, dropped = image(dtype=torch.float32), randomised(dropout=0.5)
    assert torch.equal(dropped(x, T), randomised(dropout=0.0)(x, T))
    assert not torch.allclose(dropped.train()(x, T), dropped.eval()(x, T))


# The time embedding


@pytest.mark.parametrize("channels", [32, 128])
def test_the_embedding_is_its_formula(channels):
    """A float32 angle near 1000 has an error of 1000 · 2⁻²⁴, and the frequency adds another one."""
    t = torch.tensor([0, 1, 2, 13, 250, 998, 999])
    angles = t[:, None].numpy() * np.exp(-np.log(1e4) * np.arange(channels // 2) / (channels // 2))
    expected = np.concatenate([np.cos(angles), np.sin(angles)], axis=1)
    np.testing.assert_allclose(timestep_embedding(t, channels).numpy(), expected, rtol=0, atol=4000 * 2.0**-24)


def test_the_embedding_of_zero():
    assert timestep_embedding(torch.tensor([0]), 8).tolist() == [[1.0] * 4 + [0.0] * 4]


def test_the_embedding_rotates_with_t():
    """⟨e(s), e(t)⟩ is a function of s − t alone."""
    e = timestep_embedding(torch.tensor([10, 17, 100, 107, 500, 507]), 64)
    gram = (e @ e.T).diagonal(1)[::2]
    torch.testing.assert_close(gram, gram[:1].expand(3), rtol=0, atol=1e-3)
    assert not torch.allclose(gram[0], e[0] @ e[2], atol=1)


def test_an_odd_embedding_is_padded():
    e = timestep_embedding(torch.tensor([5]), 9)
    assert e.shape == (1, 9) and e[0, -1] == 0
    assert torch.equal(e[:, :8], timestep_embedding(torch.tensor([5]), 8))


def test_t_may_be_a_float():
    network, x = randomised(), image(dtype=torch.float32)
    assert torch.equal(network(x, T), network(x, T.float()))
    halfway = torch.tensor([7.5, 801.5])
    np.testing.assert_allclose(timestep_embedding(halfway, 32).double(), embedding(halfway, 32), atol=4000 * 2.0**-24)
    between = network(x, halfway)
    assert (between - network(x, T)).norm() > 0 and torch.isfinite(between).all()


# Groups


def groups_of(**flags) -> list[tuple[int, int]]:
    with torch.device("meta"):
        norms = [module for module in UNet(**flags).modules() if isinstance(module, nn.GroupNorm)]
    return [(norm.num_groups, norm.num_channels) for norm in norms]


def test_the_original_network_has_32_groups_everywhere():
    found = groups_of()
    assert len(found) > 60 and {groups for groups, _ in found} == {32}


def test_min_group_channels_limits_the_number_of_groups():
    """min(32, channels/4) groups: otherwise a narrow network would erase the mean of each channel."""
    found = groups_of(**(SMALL | {"channel_mult": (1, 2, 4, 4), "min_group_channels": 4}))
    assert {channels for _, channels in found} >= {32, 64, 96, 128, 256}
    assert all(groups == min(32, channels // 4) for groups, channels in found)


def test_group_norm_is_computed_in_single_precision():
    """So are its weights. In bfloat16 they would be rounded before they are used."""
    norm = GroupNorm32(2, 4)
    nn.init.normal_(norm.weight, generator=torch.Generator().manual_seed(0))
    nn.init.normal_(norm.bias, generator=torch.Generator().manual_seed(1))
    x = (image(1, 4, 8, 8, dtype=torch.float32) + 100).bfloat16()
    found = norm(x)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, F.group_norm(x.float(), 2, norm.weight, norm.bias).bfloat16())


# Gradients and precision


def test_the_vector_jacobian_product_is_the_derivative():
    """⟨u, J d⟩ by central differences, with every parameter frozen."""
    network = randomised_double()
    x, d = image(2, 2, 3, 16, 16)
    x = x.requires_grad_()
    output = network(x, T)
    u = image(*output.shape).flip(0)
    (gradient,) = torch.autograd.grad(output, x, u)
    h = 1e-5
    with torch.no_grad():
        difference = (network(x + h * d, T) - network(x - h * d, T)) / (2 * h)
    assert (u * difference).sum().item() == pytest.approx((gradient * d).sum().item(), rel=1e-7)
    assert all(parameter.grad is None for parameter in network.parameters())


def test_autocast_changes_outputs_and_gradients_by_bfloat16_roundings_only():
    """bfloat16 keeps 8 bits: 2⁻⁹ per rounding, some hundred in a row with random signs, twice as many for a gradient."""
    network = randomised()
    x, u = image(dtype=torch.float32).requires_grad_(), image(2, 6, 16, 16, dtype=torch.float32)
    exact = network(x, T)
    (exact_gradient,) = torch.autograd.grad(exact, x, u)
    with torch.autocast("cpu", torch.bfloat16):
        rough = network(x, T)
    assert rough.dtype == torch.bfloat16
    (rough_gradient,) = torch.autograd.grad(rough.float(), x, u)
    assert rough_gradient.dtype == torch.float32
    assert (rough.float() - exact).norm() / exact.norm() < 10 * 2.0**-9
    assert (rough_gradient - exact_gradient).norm() / exact_gradient.norm() < 20 * 2.0**-9


def test_images_of_a_batch_are_independent():
    network, x, t = randomised_double(), image(4, 3, 16, 16), torch.tensor([0, 40, 999, 40])
    together = network(x, t)
    for b in range(4):
        torch.testing.assert_close(network(x[b : b + 1], t[b : b + 1])[0], together[b], rtol=0, atol=1e-12)


# What is refused


@pytest.mark.parametrize("sides", [(16, 18), (18, 16), (17, 17)])
def test_sides_that_cannot_be_halved_are_refused(sides):
    with pytest.raises(ValueError, match=rf"multiples of 4; got {sides[0]} x {sides[1]}"):
        UNet(**(SMALL | {"channel_mult": (1, 1, 2)}))(image(1, 3, *sides, dtype=torch.float32), T[:1])


@pytest.mark.parametrize(
    "flags", [{"num_head_channels": 128}, {"num_head_channels": -1, "num_heads": 3}, {"num_head_channels": 48}], ids=str
)
def test_channels_that_cannot_be_shared_among_heads_are_refused(flags):
    with pytest.raises(ValueError, match="cannot be shared among"):
        UNet(**(SMALL | flags))
