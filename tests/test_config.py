"""The configuration of a run: what wins over what, errors in one sentence, and which keys a resumed run may
change."""

from __future__ import annotations

import dataclasses
import functools
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from support import paths

from siamtransfer.cli import Command
from siamtransfer.cli.options import options_of
from siamtransfer.config import FREE_ON_RESUME, MethodConfig, PretrainConfig, refuse_differences
from siamtransfer.methods.registry import METHODS, section_of
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.strict_json import flatten
from siamtransfer.views.config import ViewsConfig

NAN = float("nan")
CONFIGS = paths.CONFIGS / "pretrain"
HEADER = ("Command", "Hardware", "Time", "Expected")


def read(*argv: str, default: Path | None = None) -> PretrainConfig:
    default_config = None if default is None else str(default)
    return Command("test", PretrainConfig, lambda config: None, "A test.", (), default_config).parse(argv)


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text("optim: {lr: 1.0, batch: 64, epochs: 3}\nrun: {dir: here}\n")
    second.write_text("optim:\n  lr: 2e-1\n  batch: 128\n")
    return first, second


def test_later_ones_win(files: tuple[Path, Path]) -> None:
    first, second = map(str, files)
    assert read().optim.batch_size == PretrainConfig().optim.batch_size
    assert read("--config", first).optim.batch_size == 64
    config = read("--config", first, f"--config={second}", "--optim.batch_size=256")
    assert (config.optim.lr, config.optim.batch_size, config.optim.epochs, config.run.dir) == (
        0.2,
        256,
        3,
        "here",
    )
    assert read("--optim.batch_size=256", "--config", first).optim.batch_size == 64, (
        "the order on the command line counts"
    )


def test_the_default_file_gives_way_to_any_other(files: tuple[Path, Path]) -> None:
    first, second = files
    assert read(default=first).optim.batch_size == 64
    assert read("--optim.lr=3", default=first).optim == dataclasses.replace(read(default=first).optim, lr=3.0)
    assert read("--config", str(second), default=first).run.dir == PretrainConfig().run.dir


def test_without_arguments_the_command_line_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["program", "--run.seed", "7"])
    assert Command("test", PretrainConfig, lambda config: None, "").parse().run.seed == 7


def test_values_have_the_types_that_are_declared() -> None:
    config = read(
        "--data.count=null", "--data.workers=3", "--simsiam.stop_gradient=false", "--optim.weight_decay=5e-4"
    )
    assert config.data.count is None
    assert config.data.workers == 3
    assert config.options.stop_gradient is False  # type: ignore[attr-defined]
    assert config.optim.weight_decay == 5e-4


def test_hyphens_are_as_good_as_underscores_in_keys_but_kept_in_values() -> None:
    config = read("--optim.weight-decay=0.5", "--run.dir", "my-runs/a-b", "--data.test-split", "my-part")
    assert (config.optim.weight_decay, config.run.dir, config.data.test_split) == (
        0.5,
        "my-runs/a-b",
        "my-part",
    )


def wrong(argv: Sequence[str]) -> str:
    with pytest.raises(UserError) as caught:
        read(*argv)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 600
    return message


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--optim.lrate=1"], ["optim.lrate", "did you mean --optim.lr"]),
        (["--optin.lr", "1"], ["optin.lr", "did you mean --optim.lr"]),
        (["--resum"], ["resum"]),
        (["--optim.lr=fast"], ["optim.lr", "fast"]),
        (["--optim.batch_size=1.5"], ["optim.batch_size", "1.5"]),
        (["--optim.schedule=linear"], ["optim.schedule", "cosine-epoch"]),
        (["--run.seed"], ["run.seed"]),
        (["stray"], ["stray"]),
        (["--config", "no/such.yaml"], ["no/such.yaml"]),
    ],
)
def test_mistakes_on_the_command_line_are_one_sentence_that_names_them(
    argv: list[str], words: list[str]
) -> None:
    message = wrong(argv)
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("optim: {learning_rate: 1}", ["learning_rate"]),
        ("optim: {batchsize: 1}", ["batchsize", "did you mean optim.batch_size"]),
        ("optimizer: {lr: 1}", ["optimizer"]),
        ("optim: {lr: fast}", ["optim.lr", "fast"]),
        ("optim: [1, 2", []),
        ("just words", []),
    ],
)
def test_mistakes_in_a_file_too(text: str, words: list[str], tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    (tmp_path / "fine.yaml").write_text("run: {seed: 1}")
    message = wrong(
        ["--config", str(tmp_path / "fine.yaml"), f"--config={tmp_path / 'mine.yaml'}", "--run.seed=2"]
    )
    assert message.startswith(f"{tmp_path / 'mine.yaml'}: ")
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    "word",
    [
        "data.workers=-1", "simsiam.dim=0", "simsiam.predictor_hidden=0", "checkpoint.every_steps=-1",
        "checkpoint.every_minutes=-0.5", "checkpoint.keep=0", "monitor.knn_every=-1", "monitor.knn_k=0",
        "monitor.knn_temperature=0", "monitor.knn_bank=-1", "monitor.health_every=-1", "log.every=0",
    ],
)  # fmt: skip
def test_numbers_that_mean_nothing_are_refused_by_name(word: str) -> None:
    read().check()
    with pytest.raises(UserError, match=re.escape(word.split("=")[0]) + " is .*but must be"):
        read(f"--{word}").check()


@pytest.mark.parametrize(
    ("name", "wrong_ones"),
    [
        ("simclr", {"dim": 0, "hidden": 0, "projector_layers": 0, "temperature": 0.0}),
        ("moco", {"dim": 0, "temperature": -1.0, "momentum": 1.5}),
        ("moco-v3", {"dim": 0, "hidden": 0, "temperature": 0.0, "momentum": -0.1}),
        ("byol", {"dim": 0, "hidden": 0, "momentum": 2.0}),
        ("barlow-twins", {"dim": 0, "hidden": 0, "projector_layers": 0, "redundancy": -1.0}),
        ("vicreg", {"dim": 1, "hidden": 0, "projector_layers": 0, "variance": -1.0, "covariance": NAN}),
        ("swav", {"prototypes": 0}),
        ("dino", {"dim": 0}),
        ("directpred", {"rho": 2.0}),
        ("unigrad", {"dim": 0}),
    ],
)
def test_so_are_those_of_the_chosen_method(name: str, wrong_ones: dict[str, Any]) -> None:
    section, options = section_of(name), METHODS[name].Config
    for key, value in wrong_ones.items():
        config = PretrainConfig(method=MethodConfig(name), method_options=options(**{key: value}))
        with pytest.raises(UserError, match=rf"{section}\.{key} is .*but must be"):
            config.check()


def test_the_section_of_the_chosen_method_has_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    config = read("--method.name=moco-v3", "--moco-v3.dim=64", "--byol.dim=32")
    assert isinstance(config.options, METHODS["moco-v3"].Config)
    assert "not used, for the method is moco-v3: the section byol" in capsys.readouterr().err
    saved = config.as_dict()
    assert saved["moco_v3"]["dim"] == 64
    assert saved["method"] == {"name": "moco-v3"}
    methods = {section_of(name) for name in METHODS}
    assert saved.keys() & methods == {"moco_v3"}


def test_options_that_simsiam_had_choose_its_variants(capsys: pytest.CaptureFixture[str]) -> None:
    config = read("--simsiam.target.share=0.5", "--simsiam.predictor_rate=decayed", "--simsiam.dim=64")
    assert config.method.name == "simsiam-variants"
    assert "the method is simsiam-variants" in capsys.readouterr().err
    assert config.options.target.fraction == 0.5  # type: ignore[attr-defined]
    assert (config.options.predictor_lr, config.options.dim) == ("decayed", 64)  # type: ignore[attr-defined]
    assert read("--simsiam.predictor_rate=decayed").method.name == "simsiam"


def test_a_configuration_comes_back_from_its_dict() -> None:
    config = read("--method.name=swav", "--swav.dim=64", "--views.recipe=swav", "--views.blur-p=0.25")
    assert PretrainConfig.from_dict(config.as_dict()) == config
    with pytest.raises(UserError, match=r"the saved configuration: there is no option optim\.lrate"):
        PretrainConfig.from_dict({"optim": {"lrate": 3}})


def test_an_unknown_method_is_refused_with_those_that_are_known() -> None:
    message = wrong(["--method.name=moco-v4"])
    assert "moco-v4" in message
    assert all(name in message for name in METHODS)


@pytest.mark.parametrize("recipe", ["swav", "dino"])
def test_more_views_than_the_method_takes_are_refused(recipe: str) -> None:
    for name, method in METHODS.items():
        config = PretrainConfig(views=ViewsConfig(recipe), method=MethodConfig(name))
        if method.multi_crop:
            config.check()
        else:
            with pytest.raises(
                UserError, match=rf"{recipe} makes \d+ views .* {name} takes two: .*swav, dino"
            ):
                config.check()


@pytest.mark.parametrize("file", sorted(CONFIGS.glob("*.yaml")), ids=lambda file: file.stem)
def test_every_shipped_configuration_makes_sense_and_says_what_it_is(file: Path) -> None:
    config = read("--config", str(file))
    config.check()
    config.optim.check(world_size=2, images=10_000)
    header = [line for line in file.read_text().splitlines() if line.startswith("#")]
    assert [sum(line.startswith(f"# {word}:") for line in header) for word in HEADER] == [1] * len(HEADER)
    assert file.name == "demo.yaml" or any(f"configs/pretrain/{file.name}" in line for line in header)
    assert config.run.dir == f"runs/{file.stem}"


def test_full_help_explains_every_key(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        read("--help-all")
    assert ended.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for option in options_of(PretrainConfig):
        assert option.help, f"{option.key} has no word of explanation"
        assert option.flag in text or f"no-{option.flag.rpartition('.')[2]}" in text
    assert "the initial one is lr x batch_size / 256" in text


@pytest.mark.parametrize("name", METHODS)
def test_the_help_of_a_method_explains_its_options(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        read("--help", name)
    text = capsys.readouterr().out
    for option in options_of(METHODS[name].Config, f"{section_of(name)}."):
        assert option.help, f"{option.key} has no word of explanation"
        assert option.flag.partition(".")[2].rpartition(".")[2] in text


# What a resumed run may change.


def changed(key: str) -> dict[str, Any]:
    config = PretrainConfig().as_dict()
    *sections, name = key.split(".")
    functools.reduce(dict.__getitem__, sections, config)[name] = "something else"
    return config


@pytest.mark.parametrize("key", flatten(PretrainConfig().as_dict()))
def test_only_keys_that_do_not_touch_the_numbers_are_free(key: str) -> None:
    if key in FREE or key.startswith(("log.", "checkpoint.")):
        refuse_differences(PretrainConfig().as_dict(), changed(key))
    else:
        with pytest.raises(UserError, match=key.replace(".", r"\.") + r" .* -> 'something else'"):
            refuse_differences(PretrainConfig().as_dict(), changed(key))


FREE = {
    "run.dir", "data.name", "data.root", "data.parts", "data.download", "data.workers", "data.max_unreadable",
    "hardware.device",
    "hardware.precision", "hardware.threads", "hardware.timeout_minutes",
    "hardware.sync_batch_norm_kind", "hardware.compile", "hardware.guard", "hardware.cuda_graph",
    "hardware.activation_checkpointing", "hardware.shard", "hardware.prefetch",
    "monitor.on_collapse",
    "adapt.max_drop",
    "adapt.on_forgetting",
}  # fmt: skip


def test_free_keys_exist() -> None:
    keys = list(flatten(PretrainConfig().as_dict()))
    assert all(any(key.startswith(free) for key in keys) for free in FREE_ON_RESUME)


def test_all_differences_are_listed_and_keys_that_one_side_lacks() -> None:
    old, new = PretrainConfig().as_dict(), PretrainConfig().as_dict()
    old["run"]["seed"] = 5
    new["optim"]["batch_size"] = 8
    del old["views"]["size"]
    old["views"]["more"] = 1
    with pytest.raises(UserError) as caught:
        refuse_differences(old, new)
    message = str(caught.value)
    assert "optim.batch_size 512 -> 8; run.seed 5 -> 0; views.more 1 -> None" in message
    assert "views.size" not in message


def test_a_key_that_is_newer_than_the_checkpoint_counts_as_its_default() -> None:
    old, new = PretrainConfig().as_dict(), PretrainConfig().as_dict()
    del old["optim"]["momentum"]
    refuse_differences(old, new)
    new["optim"]["momentum"] = 0.5
    with pytest.raises(UserError, match=r"optim\.momentum 0\.9 -> 0\.5"):
        refuse_differences(old, new)


def of_method(name: str, **changes: Any) -> dict[str, Any]:
    """The defaults with another method, some of whose options are changed."""
    options = METHODS[name].Config(**changes)
    return PretrainConfig(method=MethodConfig(name), method_options=options).as_dict()


def test_of_two_methods_the_names_differ_and_options_are_not_compared() -> None:
    old, new = of_method("byol"), of_method("swav")
    new["run"]["seed"] = 3
    with pytest.raises(UserError) as caught:
        refuse_differences(old, new)
    assert "(method.name 'byol' -> 'swav'; run.seed 0 -> 3)" in str(caught.value)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_resumes_itself_and_notices_its_own_options(name: str) -> None:
    old = of_method(name)
    refuse_differences(old, of_method(name))
    with pytest.raises(UserError, match=rf"\({section_of(name)}\.dim \d+ -> 24\)"):
        refuse_differences(old, of_method(name, dim=24))
    del old[section_of(name)]["dim"]  # as if the option were new
    refuse_differences(old, of_method(name))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("optim: {batch: 64, batch_size: 128}", "optim.batch_size is given twice, as optim.batch and as"),
        ("optim: {batch-size: 64, batch_size: 128}", "optim.batch_size is given twice"),
        ("optim.lr: 0.3\noptim: {lr: 0.5}", "optim.lr is given twice"),
        ("run: {dir: 1.10}", "run.dir is a text, and 1.1 is none: put it in quotes"),
        ("run: {dir: true}", "run.dir is a text, and true is none"),
        ("run: {dir: null}", "run.dir is null, but must be TEXT"),
        ("optim: {epochs: 99999999999999999999999}", "beyond the integers of 64 bits"),
        ("optim: {lr: 1e400}", "1e400 is beyond the range of numbers"),
        ("optim: {lr: .nan}", "optim.lr is 'NaN', but must be NUMBER"),
        ("optim: {lr: [1.0]}", "optim.lr is '[1.0]', but must be NUMBER"),
        ("optim: [1]", "optim is a section of settings"),
        ("optim: false", "optim is a section of settings"),
        ("optin: {lr: 1}", "there is no option optin.lr; did you mean optim.lr?"),
        ("method: byol", "method is a section of settings"),
        ("views: {per_view: [1]}", "views.per_view is '[1]'"),
    ],
)
def test_files_that_say_what_no_option_takes_are_one_sentence(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(text)
    message = wrong(["--config", str(file)])
    assert words in message
    assert message.startswith(str(file))


SOLO_LEARN = ("barlow-twins", "byol", "dino", "moco", "moco-v3", "simclr", "swav", "vicreg")


@pytest.mark.parametrize("method", SOLO_LEARN)
def test_solo_learns_recipes_have_its_first_convolution(method: str) -> None:
    """solo/backbones: a 3x3 convolution that pads by 2 pixels."""
    config = read("--config", str(CONFIGS / f"cifar10-resnet18-{method}-1000ep.yaml"))
    assert config.backbone.stem == "small-pad2"
    text = (CONFIGS / f"cifar10-resnet18-{method}-1000ep.yaml").read_text()
    assert "# Stem:      small-pad2" in text


def test_numbers_of_single_recipes() -> None:
    def shipped(name: str) -> PretrainConfig:
        return read("--config", str(CONFIGS / f"{name}.yaml"))

    barlow = shipped("imagenet-resnet50-barlow-twins-1000ep").optim
    assert barlow.vector_lr == 0.0048 / 32, "32 processes, whose gradients are 1/32 of the loss's"
    assert shipped("cifar10-resnet18-barlow-twins-1000ep").options.redundancy == 0.0051  # type: ignore[attr-defined]
    directpred, byol = (
        shipped(f"imagenet-resnet50-{name}-300ep").backbone for name in ("directpred", "byol")
    )
    assert directpred == byol
    assert "76.0 %" in (CONFIGS / "imagenet-vits16-dino-100ep.yaml").read_text()


@pytest.mark.parametrize("file", sorted(CONFIGS.glob("*ep*.yaml")), ids=lambda file: file.stem)
def test_published_figures_stand_beside_the_precision_that_they_were_trained_in(file: Path) -> None:
    """`hardware.precision: auto` is bfloat16 on GPUs, which no published recipe used."""
    text = file.read_text()
    if "no published figure" in text:
        return
    assert text.count("# Precision:") == 1
    assert "auto is bfloat16" in " ".join(text.replace("#", " ").split())


def test_a_configuration_goes_through_json_unchanged() -> None:
    config = read("--optim.lr=0.1", "--data.count=7").as_dict()
    there_and_back = json.loads(json.dumps(config))
    assert there_and_back == config
    refuse_differences(there_and_back, config)
