"""Schedules and layer-wise optimisers against numbers of published code, and the rules between.

golden/schedules.json and schedules_full.json were computed by the code that they name.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from support import paths

from siamtransfer.methods.base import ParameterGroup
from siamtransfer.optim.config import OptimConfig
from siamtransfer.optim.lars import LARC, LARS
from siamtransfer.optim.optimizers import build_optimizer, load_optimizer, rate_at, set_lr, weight_decay_at
from siamtransfer.utils.errors import UserError

FOLDER = paths.GOLDEN
GOLDEN = json.loads((FOLDER / "schedules.json").read_text())
FULL = json.loads((FOLDER / "schedules_full.json").read_text())


def test_simsiam_rates_per_epoch_with_a_constant_predictor():
    config = OptimConfig(lr=0.1, batch_size=256, epochs=10)
    weights = [torch.nn.Parameter(torch.zeros(2)) for _ in range(2)]
    groups = [ParameterGroup("encoder", weights[:1]), ParameterGroup("predictor", weights[1:], True)]
    optimizer = build_optimizer(config, groups)
    for step in range(70):
        set_lr(optimizer, config, step, steps_per_epoch=7)
        expected = GOLDEN["simsiam_per_epoch"]["values"][step // 7]
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx(expected, rel=1e-12)


def test_moco_v3_rates_per_step_with_warm_up():
    config = OptimConfig(lr=0.6, batch_size=256, epochs=6, warmup_epochs=2, schedule="cosine-step")
    ours = [rate_at(config, step, 10) for step in range(60)]
    assert ours == pytest.approx(GOLDEN["moco_v3_lr"]["values"], rel=1e-12, abs=1e-15)


# Steps per epoch of the golden run, the values, and the settings that give them.
STAIRS: dict[str, Any] = {"schedule": "cosine-epoch"}
SMOOTH: dict[str, Any] = {"schedule": "cosine-step"}
SCHEDULES: dict[str, tuple[int, list[float], dict[str, Any]]] = {
    "barlow twins": (10, [row[0] for row in GOLDEN["barlow_twins_lr"]["values"]], {
        **SMOOTH, "lr": 0.2, "batch_size": 512, "epochs": 6, "warmup_epochs": 10,
    }),
    "vicreg": (10, GOLDEN["vicreg_lr"]["values"], {
        **SMOOTH, "lr": 0.3, "batch_size": 512, "epochs": 20, "warmup_epochs": 10, "end_fraction": 0.001,
    }),
    "dino": (10, GOLDEN["dino_cosine"]["values"], {
        **SMOOTH, "lr": 0.0005, "batch_size": 256, "epochs": 6, "warmup_epochs": 2, "end_fraction": 0.002,
        "warmup_reaches_peak": True,
    }),
    "unigrad": (1, GOLDEN["unigrad_lr"]["values"], {
        "schedule": "cosine-unigrad", "lr": 0.2, "lr_scaling": "none", "epochs": 60, "warmup_epochs": 10,
        "end_fraction": 0.001, "warmup_start": 0.001,
    }),
    **{f"full/{name}": (steps, FULL["learning_rate"][name]["values"], settings) for name, steps, settings in (
        ("simsiam_per_epoch_cosine", 1, {**STAIRS, "lr": 0.05, "batch_size": 512, "epochs": 12}),
        ("simsiam_linear_probe", 1, {**STAIRS, "lr": 1.6, "lr_scaling": "none", "epochs": 90}),
        ("moco_v2_per_epoch_cosine", 1, {**STAIRS, "lr": 0.03, "batch_size": 256, "epochs": 200}),
        ("moco_v1_step", 1, {
            "schedule": "milestones", "milestones": [120, 160], "lr": 0.03, "batch_size": 256, "epochs": 200,
        }),
        ("moco_v3", 7, {**SMOOTH, "lr": 0.6, "batch_size": 512, "epochs": 12, "warmup_epochs": 3}),
        ("vicreg", 7, {
            **SMOOTH, "lr": 0.2, "batch_size": 512, "epochs": 12, "warmup_epochs": 10, "end_fraction": 0.001,
        }),
        ("swav_4096", 7, {
            **SMOOTH, "lr": 4.8, "lr_scaling": "none", "epochs": 12, "warmup_epochs": 3,
            "end_fraction": 0.001, "warmup_start": 0.0625, "warmup_reaches_peak": True,
        }),
        ("swav_256", 7, {**SMOOTH, "lr": 0.6, "lr_scaling": "none", "epochs": 12, "end_fraction": 0.001}),
        ("dino", 7, {
            **SMOOTH, "lr": 0.0005, "batch_size": 512, "epochs": 12, "warmup_epochs": 3,
            "end_fraction": 0.001, "warmup_reaches_peak": True,
        }),
        ("unigrad", 7, {
            "schedule": "cosine-unigrad", "lr": 0.05, "batch_size": 512, "epochs": 12, "warmup_epochs": 3,
            "end_fraction": 0.001, "warmup_start": 0.001,
        }),
        ("patrickhua_simsiam", 7, {
            **SMOOTH, "lr": 0.03, "batch_size": 512, "epochs": 12, "warmup_epochs": 3,
            "warmup_reaches_peak": True,
        }),
        ("solo_learn_warmup_cosine", 7, {
            **SMOOTH, "lr": 0.5, "lr_scaling": "none", "epochs": 12, "warmup_epochs": 3,
            "warmup_start": 3e-5 / 0.5, "warmup_reaches_peak": True,
        }),
    )},
}  # fmt: skip


@pytest.mark.parametrize("name", SCHEDULES)
def test_rates_equal_published_code(name):
    steps_per_epoch, values, settings = SCHEDULES[name]
    config = OptimConfig(**settings)
    ours = [rate_at(config, step, steps_per_epoch) for step in range(len(values))]
    assert ours == pytest.approx(values, rel=1e-10, abs=1e-15)


def test_barlow_twins_has_a_rate_of_its_own_for_biases():
    golden = FULL["learning_rate"]["barlow_twins"]
    config = OptimConfig(
        name="lars", schedule="cosine-step", lr=0.2, vector_lr=0.0048, batch_size=512, epochs=12,
        warmup_epochs=10, end_fraction=0.001,
    )  # fmt: skip
    layer = torch.nn.Linear(2, 2)
    optimizer = build_optimizer(config, [ParameterGroup("all", list(layer.parameters()))])
    assert [[p.ndim for p in group["params"]] for group in optimizer.param_groups] == [[2], [1]]
    rates = []
    for step in range(84):
        set_lr(optimizer, config, step, 7)
        rates.append([group["lr"] for group in optimizer.param_groups])
    expected = zip(golden["values_weights"], golden["values_biases"], strict=True)
    assert rates == [pytest.approx(pair, rel=1e-10) for pair in expected]


def test_dinos_weight_decay_rises_and_leaves_vectors_out():
    config = OptimConfig(
        name="adamw", epochs=12, weight_decay=0.04, end_weight_decay=0.4, decay_vectors=False
    )
    layer = torch.nn.Linear(2, 2)
    optimizer = build_optimizer(config, [ParameterGroup("all", list(layer.parameters()))])
    ours = []
    for step in range(84):
        set_lr(optimizer, config, step, 7)
        decays = [group["weight_decay"] for group in optimizer.param_groups]
        assert decays == [weight_decay_at(config, step, 7), 0]
        ours.append(decays[0])
    assert ours == pytest.approx(FULL["learning_rate"]["dino_weight_decay"]["values"], rel=1e-10)


@pytest.mark.parametrize(("scaling", "rate"), [("linear", 0.15), ("root", 0.3 * 128**0.5), ("none", 0.3)])
def test_the_initial_rate_scales_with_the_batch_as_asked(scaling, rate):
    assert OptimConfig(lr=0.3, batch_size=128, lr_scaling=scaling).initial_lr == pytest.approx(rate)


# Layer-wise optimisers.


def run_layerwise(
    kind: type, golden: dict[str, Any], dtype: torch.dtype, adapts: Any, **options: Any
) -> list[Any]:
    """Five steps on the golden gradients; `adapts` says of a parameter whether it is decayed and adapted."""
    parameters = {
        name: torch.nn.Parameter(torch.tensor(value, dtype=dtype))
        for name, value in golden["initial"].items()
    }
    decay = golden["settings"]["weight_decay"]
    groups = [
        {"params": [p], "adapted": adapts(p), "weight_decay": decay if adapts(p) else 0.0}
        for p in parameters.values()
    ]
    optimizer = kind(groups, lr=0.0, **options)
    found = []
    for rate, gradients in zip(golden["lr_per_step"], golden["gradients"], strict=True):
        for group in optimizer.param_groups:
            group["lr"] = rate
        for name, p in parameters.items():
            p.grad = torch.tensor(gradients[name], dtype=dtype)
        optimizer.step()
        found.append({name: p.detach().clone() for name, p in parameters.items()})
    return found


LAYERWISE = {
    "LARS_moco_v3": (LARS, lambda p: p.ndim > 1, {}),
    "LARS_barlow_filtered": (LARS, lambda p: p.ndim != 1, {}),
    "LARS_barlow_unfiltered": (LARS, lambda p: True, {}),
    "LARS_vicreg": (LARS, lambda p: p.ndim != 1, {}),
    "LARS_dino": (LARS, lambda p: p.ndim != 1, {}),
    "LARC_simsiam_probe_and_swav_wd0.0": (LARC, lambda p: True, {}),
    "LARC_simsiam_probe_and_swav_wd0.01": (LARC, lambda p: True, {}),
    "LARC_default_clip_wd0.0": (LARC, lambda p: True, {"trust": 0.02, "clip": True}),
    "LARC_default_clip_wd0.01": (LARC, lambda p: True, {"trust": 0.02, "clip": True}),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", LAYERWISE)
def test_layerwise_updates_equal_published_code(name, dtype):
    golden = FULL["optimizers"][name]
    assert set(LAYERWISE) == set(FULL["optimizers"])
    kind, adapts, options = LAYERWISE[name]
    word = str(dtype).removeprefix("torch.")
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    found = run_layerwise(kind, golden, dtype, adapts, **options)
    for ours, theirs in zip(found, golden[f"values_after_step_{word}"], strict=True):
        for key, value in theirs.items():
            torch.testing.assert_close(
                ours[key].double(),
                torch.tensor(value, dtype=torch.float64),
                rtol=tolerance,
                atol=tolerance / 10,
            )


@pytest.mark.parametrize("name", ["lars_moco_v3", "lars_vicreg"])
def test_lars_as_the_configuration_builds_it_equals_published_code(name):
    golden = GOLDEN[name]["values"]
    weight, bias = (
        torch.nn.Parameter(torch.tensor(golden[key], dtype=torch.float64)) for key in ("w0", "b0")
    )
    config = OptimConfig(name="lars", lr=0.3, batch_size=256, weight_decay=0.01, schedule="constant")
    optimizer = build_optimizer(config, [ParameterGroup("all", [weight, bias])])
    for step in range(5):
        set_lr(optimizer, config, step, 5)
        weight.grad, bias.grad = (
            torch.tensor(golden[key][step], dtype=torch.float64) for key in ("grad_w", "grad_b")
        )
        optimizer.step()
        for ours, key in ((weight, "w"), (bias, "b")):
            expected = torch.tensor(golden[key][step], dtype=torch.float64)
            torch.testing.assert_close(ours.detach(), expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("kind", [LARS, LARC])
def test_layerwise_steps_do_not_depend_on_the_gradients_length(kind):
    moved = []
    for scale in (1.0, 1000.0):
        w = torch.nn.Parameter(torch.arange(1.0, 7.0, dtype=torch.float64).view(2, 3))
        optimizer = kind([w], lr=1.0)
        w.grad = scale * torch.ones_like(w)
        optimizer.step()
        moved.append(w.detach() - torch.arange(1.0, 7.0, dtype=torch.float64).view(2, 3))
    torch.testing.assert_close(*moved, rtol=1e-7, atol=0)
    length = torch.arange(1.0, 7.0, dtype=torch.float64).norm()
    torch.testing.assert_close(moved[0].norm(), 0.001 * length, rtol=1e-7, atol=0)


def test_a_clipped_trust_ratio_never_exceeds_plain_sgd():
    for rate in (0.01, 100.0):
        w = torch.nn.Parameter(torch.full((4, 1), 5.0, dtype=torch.float64))  # of length 10
        optimizer = LARS([w], lr=rate, trust=0.02, clip=True)
        w.grad = torch.ones_like(w)  # of length 2: the trust ratio is 0.02 * 10 / 2
        optimizer.step()
        assert (5 - w).flatten().tolist() == pytest.approx([min(rate, 0.1)] * 4)


def test_a_closure_is_called_with_gradients_and_its_loss_returned():
    w = torch.nn.Parameter(torch.ones(2, 2))
    optimizer = LARS([w], lr=1.0)

    def closure() -> torch.Tensor:
        loss = w.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure) == 4
    assert (w < 1).all()


@pytest.mark.parametrize(
    ("name", "spared"), [("sgd", False), ("adamw", False), ("larc", False), ("lars", True)]
)
def test_which_rules_spare_biases_and_norms_unless_told(name, spared):
    layer = torch.nn.Linear(3, 3)
    groups = [ParameterGroup("all", list(layer.parameters()))]
    for asked, expected in ((None, spared), (True, False), (False, True)):
        config = OptimConfig(name=name, weight_decay=0.5, decay_vectors=asked)
        optimizer = build_optimizer(config, groups)
        set_lr(optimizer, config, 0, 1)
        assert sorted(group["weight_decay"] for group in optimizer.param_groups) == [0.0] * expected + [0.5]
        if name in ("lars", "larc"):
            assert [group["adapted"] for group in optimizer.param_groups] == [True] + [False] * expected


def test_larc_that_spares_vectors_is_solo_learns_lars():
    golden = json.loads((FOLDER / "solo_learn_lars.json").read_text())
    parameters = [
        torch.nn.Parameter(torch.tensor(golden[key], dtype=torch.float64)) for key in ("weight", "bias")
    ]
    config = OptimConfig(
        name="larc", lr=1, lr_scaling="none", schedule="constant", decay_vectors=False,
        weight_decay=golden["args"]["weight_decay"], trust=golden["args"]["eta"], clip_trust=True,
    )  # fmt: skip
    optimizer = build_optimizer(config, [ParameterGroup("all", parameters)])
    set_lr(optimizer, config, 0, 1)
    for rate, gradients, after in zip(golden["rates"], golden["gradients"], golden["after"], strict=True):
        for group in optimizer.param_groups:
            group["lr"] = rate
        for parameter, key in zip(parameters, ("weight", "bias"), strict=True):
            parameter.grad = torch.tensor(gradients[key], dtype=torch.float64)
        optimizer.step()
        for parameter, key in zip(parameters, ("weight", "bias"), strict=True):
            expected = torch.tensor(after[key], dtype=torch.float64)
            torch.testing.assert_close(parameter.detach(), expected, rtol=1e-7, atol=1e-9)


def test_a_state_that_is_older_than_an_option_keeps_the_option_as_built():
    config = OptimConfig()
    weights = [torch.nn.Parameter(torch.zeros(2)) for _ in range(2)]
    groups = [ParameterGroup("encoder", weights[:1]), ParameterGroup("predictor", weights[1:], True)]
    saved = build_optimizer(config, groups).state_dict()
    for group in saved["param_groups"]:
        del group["vectors"]
        group["momentum"] = 0.25
    optimizer = build_optimizer(config, groups)
    load_optimizer(optimizer, saved)
    set_lr(optimizer, config, 3, 1)
    assert [group["vectors"] for group in optimizer.param_groups] == [False, False]
    assert [group["momentum"] for group in optimizer.param_groups] == [0.25, 0.25]


def test_a_group_may_have_a_multiple_of_the_rate():
    config = OptimConfig(lr=0.1, batch_size=256, epochs=10)
    parameters = [torch.nn.Parameter(torch.zeros(2)) for _ in range(2)]
    groups = [
        ParameterGroup("a", parameters[:1], False, 3.0),
        ParameterGroup("b", parameters[1:], True, 10.0),
    ]
    optimizer = build_optimizer(config, groups)
    rate = set_lr(optimizer, config, 5, steps_per_epoch=1)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([3 * rate, 1.0])
    assert rate < 0.1


def test_rate_scales_with_the_global_batch():
    assert OptimConfig(lr=0.05, batch_size=512).initial_lr == pytest.approx(0.1)


def test_weight_decay_reaches_biases_and_norms_with_sgd():
    p = torch.nn.Parameter(torch.ones(3))
    optimizer = build_optimizer(
        OptimConfig(lr=1, batch_size=256, weight_decay=0.5), [ParameterGroup("all", [p])]
    )
    p.grad = torch.zeros(3)
    optimizer.step()
    assert p.tolist() == [0.5] * 3


@pytest.mark.parametrize(
    ("changes", "world_size", "images", "words"),
    [
        ({"batch_size": 512}, 1, 100, "--optim.batch-size 64"),
        ({"batch_size": 30}, 4, 100, "multiple of 4"),
        ({"batch_size": 8, "grad_accum_steps": 3}, 1, 100, "multiple of 3"),
        ({"batch_size": 4}, 4, 100, "batch norm"),
        ({"batch_size": 4, "epochs": 5, "warmup_epochs": 5}, 1, 100, "warmup_epochs"),
        ({"batch_size": 4, "epochs": 0}, 1, 100, "at least 1"),
        ({"batch_size": 4, "lr": -0.1}, 1, 100, "optim.lr is -0.1"),
        ({"batch_size": 4, "lr": float("nan")}, 1, 100, "optim.lr is nan"),
        ({"batch_size": 4, "weight_decay": float("inf")}, 1, 100, "optim.weight_decay is inf"),
        ({"batch_size": 4, "vector_lr": -1.0}, 1, 100, "optim.vector_lr is -1"),
        ({"batch_size": 4, "end_weight_decay": -1.0}, 1, 100, "optim.end_weight_decay is -1"),
        (
            {"batch_size": 4, "end_fraction": 1.5},
            1,
            100,
            "optim.end_fraction is 1.5, but must be from 0 to 1",
        ),
        ({"batch_size": 4, "warmup_start": -0.5}, 1, 100, "optim.warmup_start is -0.5"),
        ({"batch_size": 4, "trust": 0.0}, 1, 100, "optim.trust is 0.0, but must be above 0"),
        ({"batch_size": 4, "milestones": [3]}, 1, 100, "optim.milestones and the schedule"),
        ({"batch_size": 4, "schedule": "milestones"}, 1, 100, "optim.milestones and the schedule"),
    ],
)
def test_impossible_numbers_name_their_cure(changes, world_size, images, words):
    with pytest.raises(UserError, match=words):
        OptimConfig(**changes).check(world_size, images)
