"""The gradient view: every method's decomposition against what its own loss gives the network's weights, the
indicators by hand, ranks, the program and a watched run, and what is refused."""

from __future__ import annotations

import copy
import json
import math
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support import paths
from support.checkpoint_files import random_state
from support.golden_methods import ALONE, TinyBackbone, random_views
from support.small_runs import (
    TINY,
    complete,
    differences,
    launch,
    launch_ranks,
    newest,
    on_ranks,
    rows,
    stop_at,
)
from torch import Tensor
from torch.nn import functional as F

import siamtransfer.programs.pretrain as training
from siamtransfer.backbones.architecture import build_backbone
from siamtransfer.data import open_images
from siamtransfer.distributed.runtime import Runtime, unwrap
from siamtransfer.evaluation.gradient_view.decomposition import (
    GUIDE,
    PREFIX,
    ViewGradient,
    average,
    decompose,
    indicators,
)
from siamtransfer.evaluation.gradient_view.forms import require_form
from siamtransfer.methods import METHODS, Method, Options, SimSiam, SimSiamConfig
from siamtransfer.methods.parts.unified_gradient import Gradient
from siamtransfer.pretraining import state
from siamtransfer.programs.gradients import main
from siamtransfer.utils.errors import UserError
from siamtransfer.views.dataset import ViewSet, augment_batch
from siamtransfer.views.recipes import recipe
from siamtransfer.views.sampler import epoch_order

SCRIPT = paths.SCRIPTS / "plot_run.py"
NAMES = [PREFIX + name for name in GUIDE]
HEADS = {"dim": 12, "hidden": 16}

CASES: list[tuple[str, dict[str, Any]]] = [
    ("simsiam", {"dim": 12}),
    ("simsiam", {"dim": 12, "symmetric": False}),
    ("simsiam-variants", {"dim": 12, "batch_norm": "all", "symmetric": False}),
    ("simsiam-variants", {"dim": 12, "predictor": "none", "batch_norm": "none"}),
    ("simsiam-variants", {"dim": 12, "predictor": "fixed", "predictor_shape": "residual"}),
    (
        "simsiam-variants",
        {"dim": 12, "predictor_shape": "experts", "predictor_experts": 2, "activation": "gelu"},
    ),
    ("simclr", {"dim": 12}),
    ("simclr", {"dim": 12, "temperature": 0.5, "output_norm": "none"}),
    ("moco", {"dim": 12, "queue": 24}),
    ("moco", {"dim": 12, "queue": 16, "projector_layers": 1, "temperature": 0.07}),
    ("moco-v3", HEADS),
    ("moco-v3", {**HEADS, "temperature": 0.2, "projector_layers": 3, "predictor_norm": True}),
    ("byol", HEADS),
    ("barlow-twins", HEADS),
    ("barlow-twins", {**HEADS, "redundancy": 0.3, "scale": 0.1}),
    ("vicreg", HEADS),
    ("vicreg", {**HEADS, "invariance": 3.0, "variance": 7.0, "covariance": 0.5}),
    ("directpred", HEADS),
    ("directpred", {**HEADS, "symmetric": False}),
    *(
        ("unigrad", {**HEADS, "negative": negative, "target": target, "normalise": normalise})
        for negative in ("unigrad", "contrastive", "asymmetric", "barlow-twins", "vicreg")
        for target, normalise in (("momentum", "l2"), ("stop-gradient", "l2"), ("momentum-positive", "batch"))
    ),
    ("unigrad", {**HEADS, "negative": "contrastive", "queue": 24}),
    ("byol", {**HEADS, "projector_layers": 3}),
]


def build(name: str, options: dict[str, Any]) -> Method:
    """A method in float64 whose target network, if any, and running state are not what they began as."""
    torch.manual_seed(5)
    entry = METHODS[name]
    method = entry(TinyBackbone(), entry.Config(**options)).double().train()
    with torch.no_grad():
        for part, parameter in method.named_parameters():
            if part.startswith("target_"):
                parameter += 0.1 * torch.randn_like(parameter)
    method(random_views(8, 8))  # fills averages and moves the queue
    return method


def embeddings(method: Method, views: list[Tensor]) -> list[Tensor]:
    """What the method's paper calls the embeddings of the views."""
    z = [method.get_submodule("projector")(method.backbone(x)) for x in views]
    kind = type(method).__name__
    if kind == "MoCoV3":
        z = [method.get_submodule("predictor")(each) for each in z]
    if kind == "BarlowTwins":
        z = [method.get_submodule("norm")(each) for each in z]
    l2 = kind in ("SimCLR", "MoCo", "MoCoV3") or getattr(method.config, "normalise", None) == "l2"
    return [F.normalize(each, dim=1) for each in z] if l2 else z


def encoder(method: Method) -> list[torch.nn.Parameter]:
    """The weights that embeddings are made by; those of MoCo v3 are predictions."""
    parts = ("backbone.", "projector.", *(["predictor."] if type(method).__name__ == "MoCoV3" else []))
    return [p for name, p in method.named_parameters() if name.startswith(parts) and p.requires_grad]


# The gradient.


@pytest.mark.parametrize(("name", "options"), CASES, ids=[f"{n}-{i}" for i, (n, _) in enumerate(CASES)])
def test_the_decomposition_gives_weights_the_gradient_of_the_loss(name: str, options: dict[str, Any]) -> None:
    """Closed form times the Jacobian of the embeddings is what loss.backward() leaves in the encoder."""
    method, views = build(name, options), random_views(8, 8)
    before = {key: tensor.clone() for key, tensor in method.state_dict().items()}
    found = decompose(method, views, ALONE)
    assert differences(before, method.state_dict()) == []
    for view in found:
        torch.testing.assert_close(view.gradient.total, view.autograd, rtol=1e-9, atol=1e-11)

    second = copy.deepcopy(method)
    u = embeddings(second, views)
    pushed = sum((view.gradient.total * each).sum() / 8 for view, each in zip(found, u, strict=False))
    assert isinstance(pushed, Tensor)
    ours = torch.autograd.grad(pushed, encoder(second), allow_unused=True)
    theirs = torch.autograd.grad(method(views).loss, encoder(method), allow_unused=True)
    size = max(float(each.abs().max()) for each in theirs if each is not None)
    assert size > 1e-5
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10 * size)

    one_sided = name == "moco" or options.get("symmetric") is False
    assert len(found) == (1 if one_sided else 2)
    for view, each in zip(found, u, strict=False):
        torch.testing.assert_close(view.embedding, each.detach())
    assert found[0].separable_balance == (name not in ("simsiam", "simsiam-variants", "byol"))


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["simsiam", "moco", "barlow-twins", "unigrad"])
def test_a_half_precise_method_is_decomposed_in_float64_and_left_alone(
    name: str, precision: torch.dtype
) -> None:
    method = build(name, dict(next(options for case, options in CASES if case == name))).float()
    before = {key: tensor.clone() for key, tensor in method.state_dict().items()}
    runtime = Runtime(torch.device("cpu"), precision)
    found = indicators(decompose(method, [x.float() for x in random_views(8, 8)], runtime))
    assert found[PREFIX + "disagreement"] < 1e-12
    assert differences(before, method.state_dict()) == []
    assert all(p.grad is None for p in method.parameters())


def test_parts_are_what_the_papers_say() -> None:
    """MoCo's pull is -k, DirectPred's gradient has no radial part, UniGrad's is F u with balance 100."""
    views = random_views(8, 8)
    moco = build("moco", {"dim": 12, "queue": 24})
    (view,) = decompose(moco, views, ALONE)
    k = F.normalize(moco.get_submodule("target_projector")(moco.get_submodule("target_backbone")(views[1])))
    torch.testing.assert_close(view.gradient.positive, -k)
    assert indicators([view])[PREFIX + "balance"] == 1

    straight = indicators(decompose(build("directpred", HEADS), views, ALONE))
    assert straight[PREFIX + "radial"] == pytest.approx(0, abs=1e-12)

    unigrad = build("unigrad", {**HEADS, "rho": 0.0})
    first, second = decompose(unigrad, views, ALONE)
    f = torch.cat([first.target, second.target])
    f = f.T @ f / len(f)
    torch.testing.assert_close(first.gradient.negative, first.embedding @ f)
    assert indicators([first])[PREFIX + "balance"] == 100


def test_the_balance_of_predictors_with_batch_norm_is_not_told() -> None:
    found = indicators(decompose(build("byol", HEADS), random_views(8, 8), ALONE))
    assert math.isnan(found[PREFIX + "balance"])
    assert all(math.isfinite(value) for name, value in found.items() if name != PREFIX + "balance")


# The indicators.


def made_up(change: float = 0.0) -> ViewGradient:
    """Two images in the plane; `change` is how far autograd is away."""
    u1 = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    u2 = torch.tensor([[0.6, 0.8], [0.0, 1.0]], dtype=torch.float64)
    negative = torch.tensor([[3.0, 0.0], [0.0, 4.0]], dtype=torch.float64)
    balance, scale = torch.tensor([[[2.0], [1.0]], [[0.5], [2.0]]], dtype=torch.float64)
    gradient = Gradient(-u2, negative, balance, scale)
    return ViewGradient(u1, u2, gradient, gradient.total * (1 + change), separable_balance=True)


def test_indicators_by_hand() -> None:
    expected = {
        "ratio": (3 + 8) / (0.5 + 2),
        "balance": 1.5,
        "radial": (0.5 * (6 - 0.6) + 2 * (4 - 1)) / 2,
        "parts_cosine": (-0.6 - 1) / 2,
        "view_cosine": (0.6 + 1) / 2,
        "others_cosine": (0 + 0.8) / 2,
        "effective_rank": 2,
        "off_diagonal": 1,
        "disagreement": 0,
    }
    assert indicators([made_up()]) == pytest.approx({PREFIX + name: x for name, x in expected.items()})
    assert list(expected) == list(GUIDE)


def test_views_and_batches_are_averaged_and_the_worst_disagreement_told() -> None:
    one, other = made_up(), made_up(1e-9)
    other.target = one.embedding
    both = indicators([one, other])
    assert both[PREFIX + "view_cosine"] == pytest.approx((0.8 + 1) / 2)
    assert both[PREFIX + "disagreement"] == pytest.approx(1e-9, rel=1e-3)
    found = average([indicators([one]), both])
    assert found[PREFIX + "view_cosine"] == pytest.approx((0.8 + 0.9) / 2)
    assert found[PREFIX + "disagreement"] == both[PREFIX + "disagreement"]


@pytest.mark.parametrize("change", [1e-7, -2.0, math.nan])
def test_a_decomposition_that_disagrees_is_not_reported(change: float) -> None:
    with pytest.raises(UserError, match=r"away from autograd's.*not reported"):
        indicators([made_up(), made_up(change)])


def test_parts_that_cancel_disagree_by_their_rounding_only() -> None:
    u = torch.eye(3, dtype=torch.float64)
    view = ViewGradient(u, u, Gradient(-u, u * (1 + 1e-15)), torch.zeros_like(u), separable_balance=True)
    assert view.disagreement() < 1e-10
    wrong = ViewGradient(u, u, Gradient(-u, u * (1 + 1e-9)), torch.zeros_like(u), separable_balance=True)
    assert wrong.disagreement() > 1e-6


def test_embeddings_of_length_zero_are_refused() -> None:
    method = build("simsiam-variants", {"dim": 12, "predictor": "none", "batch_norm": "none"})
    with torch.no_grad():
        for parameter in method.get_submodule("projector").parameters():
            parameter.zero_()
    with pytest.raises(UserError, match="length zero"):
        indicators(decompose(method, random_views(8, 8), ALONE))


def measure_all(runtime: Runtime) -> list[list[float]]:
    """The indicators of methods that look at other ranks' rows, on this rank's share of 8 images."""
    found = []
    for name in ("simclr", "moco", "moco-v3", "byol", "barlow-twins", "vicreg"):
        options = next(options for case, options in CASES if case == name)
        method = unwrap(runtime.distribute(build_alone(name, options)))
        share = [view.chunk(runtime.world_size)[runtime.rank] for view in random_views(8, 8)]
        found.append(list(indicators(decompose(method, share, runtime)).values())[:-1])
    return found


def build_alone(name: str, options: dict[str, Any]) -> Method:
    torch.manual_seed(5)
    return METHODS[name](TinyBackbone(), METHODS[name].Config(**options)).double()


def test_two_ranks_are_one() -> None:
    one = measure_all(ALONE)
    for each in on_ranks(measure_all):
        for ours, theirs in zip(each, one, strict=True):
            assert ours == pytest.approx(theirs, rel=1e-8, abs=1e-10, nan_ok=True)


# What has no such form.


@pytest.mark.parametrize("name", ["swav", "dino"])
def test_methods_without_such_a_form(name: str) -> None:
    with pytest.raises(UserError, match=f"gradient of {name} has no such parts.* simsiam, simclr, moco"):
        require_form(METHODS[name].Config(), 2)


def variants(**settings: Any) -> Options:
    return METHODS["simsiam-variants"].Config.from_dict(settings)


@pytest.mark.parametrize(
    ("options", "views", "words"),
    [
        (SimSiamConfig(stop_gradient=False), 2, r"simsiam\.stop_gradient makes it another"),
        (variants(similarity="mse"), 2, r"simsiam_variants\.similarity"),
        (variants(target={"gradient": 0.1}), 2, r"simsiam_variants\.target"),
        (variants(terms={"contrast": 0.1}), 2, r"simsiam_variants\.terms"),
        (variants(bottleneck={"deviation": 0.5}), 2, r"simsiam_variants\.bottleneck"),
        (SimSiamConfig(), 4, "two views of an image, and the recipe makes 4"),
        (METHODS["vicreg"].Config(covariance=0.0), 2, r"vicreg\.covariance 0.*no negative part"),
        (METHODS["vicreg"].Config(invariance=0.0), 2, r"vicreg\.invariance 0.*no positive part"),
    ],
)
def test_losses_without_such_a_form(options: Any, views: int, words: str) -> None:
    with pytest.raises(UserError, match=words):
        require_form(options, views)


# The program.


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Small runs of three methods, SimSiam's with all its checkpoints."""
    folder = tmp_path_factory.mktemp("runs")
    complete(folder / "simsiam", "--checkpoint.keep=9")
    heads = ["--optim.lr=0.1", "--optim.epochs=1"]
    complete(folder / "moco", "--method.name=moco", "--moco.dim=16", "--moco.queue=24", *heads)
    crops = ["--views.recipe=swav", "--views.size=32"]
    small = ["--swav.dim=16", "--swav.hidden=24", "--swav.prototypes=12"]
    complete(folder / "swav", "--method.name=swav", *small, *crops, *heads)
    return {name: folder / name for name in ("simsiam", "moco", "swav")}


def score(*argv: object) -> dict[str, Any]:
    found = main([str(word) for word in (*argv, "--device", "cpu")])
    assert found is not None
    return json.loads(json.dumps(found))


def refused(*argv: object) -> str:
    with pytest.raises(UserError) as caught:
        score(*argv)
    return str(caught.value)


def test_a_checkpoint_is_measured_on_new_views_of_its_own_images(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint, out = runs["simsiam"] / "checkpoint.pth", tmp_path / "out.json"
    found = score(checkpoint, "--batches", 2, "--seed", 3, "--record", out)

    saved = newest(runs["simsiam"])
    method = SimSiam(
        build_backbone("resnet18", width=8, stem=saved["backbone"]["stem"]),
        SimSiamConfig(dim=32, projector_layers=2),
    )
    method.load_state_dict(saved["model"])
    images = open_images("fashion-scenes", size=32, count=40)
    views = recipe("cifar-simsiam", size=16)
    order, several = epoch_order(40, 3, 0), []
    for taken in (order[:8], order[8:16]):
        cut = ViewSet(lambda index: (images.image(index), []), views, 3, 40)
        painted = augment_batch(cut.__getitems__([(-1, int(index)) for index in taken]), views)
        several.append(indicators(decompose(method.train(), painted, ALONE)))
    expected = average(several)
    del expected[PREFIX + "disagreement"], expected[PREFIX + "balance"]
    assert {name: found["metrics"][name] for name in expected} == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert found["metrics"][PREFIX + "disagreement"] < 1e-8
    assert json.loads(out.read_text())["metrics"][PREFIX + "balance"] is None

    (one,) = found["protocol"]["checkpoints"]
    assert (one["step"], one["batch"], one["recipe"], one["method"]["dim"]) == (15, 8, "cifar-simsiam", 32)
    assert found["provenance"]["checkpoints"][0]["data_fingerprint"] == images.fingerprint
    said = capsys.readouterr().err
    for name in GUIDE:
        assert any(line.startswith(f"{name} ") for line in said.splitlines())
    again = score(checkpoint, "--batches", 2, "--seed", 3, "--data.workers", 0)["metrics"]
    assert again == pytest.approx(found["metrics"], nan_ok=True)
    assert score(checkpoint, "--batches", 2, "--seed", 4)["metrics"] != again


def test_checkpoints_of_runs_are_drawn_over_training(runs: dict[str, Path], tmp_path: Path) -> None:
    picture = tmp_path / "p.png"
    sources = [runs["simsiam"] / "checkpoints", runs["moco"] / "checkpoint.pth"]
    found = score(*sources, "--batches", 1, "--plot", picture)
    assert [one["step"] for one in found["protocol"]["checkpoints"]] == [4, 8, 12, 15, 5]
    assert {name.partition("/")[0] for name in found["metrics"]} == set("12345")
    assert {name.partition("/")[2] for name in found["metrics"]} == set(NAMES)
    assert found["metrics"]["5/gradient/balance"] == 1
    ratios = {found["metrics"][f"{n}/gradient/ratio"] for n in range(1, 5)}
    assert len(ratios) == 4
    drawn = np.asarray(Image.open(picture).convert("RGB"))
    colours = {tuple(colour) for colour in drawn.reshape(-1, 3).tolist()}
    assert {tuple(bytes.fromhex(line)) for line in ("1f77b4", "ff7f0e")} <= colours  # two runs, two lines
    assert tuple(bytes.fromhex("2ca02c")) not in colours
    assert [path.name for path in tmp_path.iterdir()] == ["p.png"]


def test_mistakes_are_one_sentence(runs: dict[str, Path], tmp_path: Path) -> None:
    checkpoint = runs["simsiam"] / "checkpoint.pth"
    assert "gradient of swav has no such parts" in refused(checkpoint, runs["swav"] / "checkpoint.pth")
    assert "missing.pth" in refused(tmp_path / "missing.pth")
    assert "holds no .pth files" in refused(tmp_path)
    assert "must end in .png" in refused(checkpoint, "--plot", tmp_path / "p.jpg")
    assert "--batches is 0" in refused(checkpoint, "--batches", 0)
    assert "--batch-size is 1" in refused(checkpoint, "--batch-size", 1)
    assert "10 batches of 8 are more than the 40 images" in refused(checkpoint, "--batches", 10)
    assert "does not take it" in refused(checkpoint, "--data.root", tmp_path)
    assert "exists" in refused(checkpoint, "--record", written(tmp_path / "old.json"))
    assert "random, and the gradient is one of heads" in refused("random:resnet18:width=8:stem=small")
    torch.save(random_state("resnet18"), tmp_path / "foreign.pth")
    assert "only checkpoints of pretrain/main.py" in refused(tmp_path / "foreign.pth")
    changed(checkpoint, tmp_path / "lacking.pth", lambda state: state["model"].pop("projector.0.weight"))
    assert "does not hold the method" in refused(tmp_path / "lacking.pth")
    changed(checkpoint, tmp_path / "other.pth", lambda state: state["data"].update(fingerprint="0", images=9))
    assert "9 then and 40 now" in refused(tmp_path / "other.pth")


def test_a_checkpoint_is_not_overwritten_by_a_picture(runs: dict[str, Path], tmp_path: Path) -> None:
    mine = tmp_path / "mine.png"
    mine.write_bytes((runs["simsiam"] / "checkpoint.pth").read_bytes())
    assert "never overwritten" in refused(mine, "--plot", mine)


def written(path: Path) -> Path:
    path.write_text("{}")
    return path


def changed(source: Path, target: Path, change: Callable[[Any], object]) -> None:
    state = torch.load(source, weights_only=True)
    change(state)
    torch.save(state, target)


# A run that is watched.


def without_gradients(folder: Path) -> list[dict[str, Any]]:
    return [row for row in rows(folder) if PREFIX + "ratio" not in row]


@pytest.mark.parametrize(("name", "stopped"), [("moco", True), ("unigrad", False)])
def test_a_watched_run_is_the_run_that_is_not(name: str, stopped: bool, tmp_path: Path) -> None:
    small = ["--optim.lr=0.1", "--moco.dim=16", "--moco.queue=24", "--unigrad.dim=16", "--unigrad.hidden=24"]
    options = [f"--method.name={name}", *small, "--optim.grad_accum_steps=2"]
    complete(tmp_path / "plain", *options)
    options.append("--monitor.gradients_every=2")
    if stopped:
        run = launch(tmp_path / "watched", *options, fault=stop_at(7))
        assert run.wait() == 143, run.said
        options.append("--resume")
    complete(tmp_path / "watched", *options)
    states = newest(tmp_path / "plain"), newest(tmp_path / "watched")
    assert differences(*states, free=("config.run.dir", "config.monitor.gradients_every")) == []
    assert without_gradients(tmp_path / "watched") == rows(tmp_path / "plain")
    taken = [row for row in rows(tmp_path / "watched") if PREFIX + "ratio" in row]
    assert [row["step"] for row in taken] == [2, 4, 6, 8, 10, 12, 14]
    assert all(set(row) == {"step", *NAMES} and row[PREFIX + "disagreement"] < 1e-8 for row in taken)


def test_two_ranks_watch_what_one_process_watches(tmp_path: Path) -> None:
    small = ["--moco_v3.dim=16", "--moco_v3.hidden=24", "--optim.lr=0.1", "--optim.epochs=1"]
    options = ["--method.name=moco-v3", *small]
    watched = [*options, "--monitor.gradients_every=1"]
    complete(tmp_path / "one", *watched)
    for folder, chosen in (("plain", options), ("watched", watched)):
        ranks = launch_ranks(tmp_path / folder, *chosen)
        assert [rank.wait() for rank in ranks] == [0, 0], [rank.said for rank in ranks]
    states = newest(tmp_path / "plain"), newest(tmp_path / "watched")
    assert differences(*states, free=("config.run.dir", "config.monitor.gradients_every")) == []
    first = [
        next(row for row in rows(tmp_path / run) if PREFIX + "ratio" in row) for run in ("one", "watched")
    ]
    assert first[0].keys() == first[1].keys()
    for name in set(NAMES) - {PREFIX + "disagreement"}:
        assert first[1][name] == pytest.approx(first[0][name], rel=1e-3), name


def test_a_watched_runs_gradients_are_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    complete(tmp_path / "run", "--monitor.gradients_every=5")
    sizes = []
    for keep in (True, False):
        if not keep:
            lines = [json.dumps(row) for row in without_gradients(tmp_path / "run")]
            (tmp_path / "run" / "metrics.jsonl").write_text("\n".join(lines) + "\n")
            (tmp_path / "run" / "metrics.jsonl.crc32").unlink()
        monkeypatch.setattr("sys.argv", ["plot_run.py", str(tmp_path / "run"), str(tmp_path / "p.png")])
        runpy.run_path(str(SCRIPT))["main"]()
        sizes.append(Image.open(tmp_path / "p.png").size)
    assert sizes[0] == (sizes[1][0], 2 * sizes[1][1])


def test_a_run_that_cannot_be_watched_is_told_before_the_first_step(tmp_path: Path) -> None:
    argv = [*TINY, f"--run.dir={tmp_path / 'run'}", "--monitor.gradients_every=1"]
    with pytest.raises(UserError, match=r"simsiam\.stop_gradient"):
        training.main([*argv, "--simsiam.stop_gradient=false"])
    with pytest.raises(UserError, match=r"monitor\.gradients_every is -1"):
        training.main([*argv, "--monitor.gradients_every=-1"])
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_a_view_that_fails_stops_no_run(tmp_path: Path) -> None:
    """A predictor of zeros has no direction; its loss is 0 and its gradient too."""
    heads = ["--method.name=simsiam-variants", "--simsiam_variants.batch_norm=none"]
    heads += ["--simsiam_variants.predictor=fixed", "--optim.epochs=1"]
    run = complete(tmp_path / "run", *heads, "--monitor.gradients_every=5", fault=silence_predictors)
    assert "no gradient view after step 5: the gradient in closed form" in run.said
    assert without_gradients(tmp_path / "run") == rows(tmp_path / "run")


def silence_predictors() -> None:
    """A fault: every predictor that is built answers zero."""
    original = state.build_method

    def build_method(config: Any, *networks: Any) -> Method:
        method = original(config, *networks)
        for parameter in method.get_submodule("predictor").parameters():
            parameter.detach().zero_()
        return method

    state.build_method = build_method
