"""The methods by name, found from the files of this folder, and the option names of older versions.

Every module of this folder is a method, but for `base`, `registry` and private ones; so is every package with
a `model.py`. The file `barlow_twins.py` is the method `barlow-twins`. A class from any other place is added
by `METHODS.register(MyMethod)`. This module imports no torch; a method's class is imported on first access.
"""

from __future__ import annotations

import copy
import importlib
import inspect
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from siamtransfer.utils.errors import UserError

if TYPE_CHECKING:
    from siamtransfer.methods.base import Method, Options

FOLDER = Path(__file__).parent
NOT_METHODS = {"base", "registry"}
ORDER = (
    "simsiam",
    "simclr",
    "moco",
    "moco-v3",
    "byol",
    "swav",
    "dino",
    "barlow-twins",
    "vicreg",
    "directpred",
    "unigrad",
    "simsiam-variants",
)
"""The order of lists and tables; methods that are not named here follow in alphabetical order."""
VARIANTS = "simsiam-variants"


class MethodRegistry(Mapping[str, "type[Method]"]):
    """A mapping from a method's name to its class: `METHODS[name](backbone, METHODS[name].Config(...))`.

    Names are known without an import. An access raises UserError if the method's file cannot be imported or
    holds no method, and KeyError if there is no such name.
    """

    def __init__(self, folder: Path = FOLDER, package: str = "siamtransfer.methods"):
        self._modules = {name: f"{package}.{module}" for name, module in _modules_of(folder).items()}
        self._imported: dict[str, type[Method]] = {}
        self._registered: dict[str, type[Method]] = {}

    def __iter__(self) -> Iterator[str]:
        yield from self._modules
        yield from self._registered

    def __len__(self) -> int:
        return len(self._modules) + len(self._registered)

    def __contains__(self, name: object) -> bool:
        return name in self._modules or name in self._registered

    def __getitem__(self, name: str) -> type[Method]:
        if name in self._registered:
            return self._registered[name]
        if name not in self._imported:
            self._imported[name] = _method_in(self._modules[name])
        return self._imported[name]

    def register(self, cls: type[Method], name: str | None = None) -> str:
        """Adds a method class from outside this folder, and returns its name.

        The name is `name`, else the class's own attribute `name`, else the class's name in hyphens:
        `MyMethod` is `my-method`. A class from this folder keeps its name. A second class of the same name
        replaces the first one, as when a notebook's cell runs again.

        Raises:
            UserError: the class is no method or has no `Config`; the name is not of small letters, digits and
                hyphens; or a file of this folder has the name.
        """
        from siamtransfer.methods.base import Method

        if not (inspect.isclass(cls) and issubclass(cls, Method) and hasattr(cls, "Config")):
            raise UserError(f"{cls!r} must be a subclass of Method whose Config is its Options class")
        own = {module: name for name, module in self._modules.items()}
        if name is None and cls.__module__ in own:
            return own[cls.__module__]
        name = name or vars(cls).get("name") or in_hyphens(cls.__name__)
        if not re.fullmatch(r"[a-z][a-z0-9-]*", name):
            raise UserError(
                f"the name of a method is of small letters, digits and hyphens, and {name!r} is not"
            )
        if name in self._modules:
            raise UserError(f"siamtransfer has a method {name}: choose another name for {cls.__name__}")
        self._registered[name] = cls
        return name

    def unregister(self, name: str) -> None:
        """Removes a class that `register` added; KeyError if there is none of this name."""
        del self._registered[name]

    def name_of(self, config: type[Options]) -> str:
        """The name of the method whose options are of the class `config`; KeyError if there is none."""
        for name in self:
            if self[name].Config is config:
                return name
        raise KeyError(config.__name__)


def _modules_of(folder: Path) -> dict[str, str]:
    """The names of the methods in `folder`, in order, with their modules below the package."""
    files = {path.stem: path.stem for path in folder.glob("*.py") if not path.stem.startswith("_")}
    packages = {path.parent.name: f"{path.parent.name}.model" for path in folder.glob("*/model.py")}
    modules = {
        stem.replace("_", "-"): module
        for stem, module in (files | packages).items()
        if stem not in NOT_METHODS
    }
    rank = {name: position for position, name in enumerate(ORDER)}
    names = sorted(modules, key=lambda name: (rank.get(name, len(rank)), name))
    return {name: modules[name] for name in names}


def _method_in(module_name: str) -> type[Method]:
    """The one subclass of Method with a Config of its own that the module defines."""
    from siamtransfer.methods.base import Method

    file = module_name.replace(".", "/") + ".py"
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise UserError(f"{file} cannot be imported: {type(error).__name__}: {error}") from error
    classes = [
        cls
        for cls in vars(module).values()
        if inspect.isclass(cls)
        and issubclass(cls, Method)
        and cls.__module__ == module_name
        and "Config" in vars(cls)
    ]
    if len(classes) != 1:
        names = ", ".join(cls.__name__ for cls in classes) or "none"
        raise UserError(f"{file} must define one subclass of Method with a Config, and defines {names}")
    return classes[0]


METHODS = MethodRegistry()


def section_of(name: str) -> str:
    """The section of the configuration that holds a method's options: moco_v3 for moco-v3."""
    return name.replace("-", "_")


def in_hyphens(name: str) -> str:
    """A class's name as a method's: MyMethod is my-method, VICRegPlus is vic-reg-plus."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", name).replace("_", "-").lower()


# Configurations of older versions.

RENAMED: dict[str, str] = {
    "optim.batch": "optim.batch_size",
    "optim.accumulate": "optim.grad_accum_steps",
    "optim.end_share": "optim.end_fraction",
    "simsiam.predictor_rate": "simsiam.predictor_lr",
    "simsiam.predictor_rate_scale": "simsiam.predictor_lr_scale",
    "simsiam.backbone_rate_scale": "simsiam.backbone_lr_scale",
    "simsiam.target.share": "simsiam.target.fraction",
    "simsiam.clusters.share": "simsiam.clusters.fraction",
    "simsiam.terms.labelled_share": "simsiam.terms.labelled_fraction",
    "simsiam.terms.rate_scale": "simsiam.terms.lr_scale",
}
"""Option names of older versions. Those that SimSiam has no longer move on to the section
simsiam_variants."""


def current_names(config: Mapping[str, Any], *, views: int = 2) -> dict[str, Any]:
    """A nested configuration of any version under today's option names; `config` itself stays unchanged.

    Keys in RENAMED get their new names. Older versions kept the options of `simsiam-variants` in the section
    `simsiam`: where the method is simsiam and one of them is not at its default, or an image has more than
    two `views`, the method becomes simsiam-variants and the section simsiam_variants; otherwise they are
    dropped. Parts of a configuration are accepted: a missing method counts as simsiam.
    """
    renamed: dict[str, Any] = copy.deepcopy(dict(config))
    for old, new in RENAMED.items():
        *sections, key = old.split(".")
        options = renamed
        for section in sections:
            options = options.get(section) or {}
        if key in options:
            options[new.rpartition(".")[2]] = options.pop(key)
    method = renamed.get("method") or {}
    if method.get("name", "simsiam") != "simsiam":
        return renamed
    options = renamed.get("simsiam") or {}
    extra = _variant_options(options)
    if any(extra.values()) or (views > 2 and "simsiam" in renamed):
        renamed["method"] = {**method, "name": VARIANTS}
        renamed[section_of(VARIANTS)] = renamed.pop("simsiam")
    else:
        for key in extra:
            del options[key]
    return renamed


def _variant_options(options: Mapping[str, Any]) -> dict[str, bool]:
    """The keys of a section simsiam that only simsiam-variants has: whether their values are not the
    defaults."""
    if not options:
        return {}
    plain, variants = METHODS["simsiam"].Config, METHODS[VARIANTS].Config
    defaults, own = vars(variants()), vars(plain())
    changed = {}
    for key in options.keys() & defaults.keys() - own.keys():
        value = options[key]
        if isinstance(value, Mapping):
            value = type(defaults[key])(**value)
        changed[key] = value != defaults[key]
    return changed


def saved_options(config: Mapping[str, Any]) -> tuple[str, Options]:
    """The name and the options of the method in a run's saved configuration, of any version.

    Raises:
        KeyError, TypeError: it names an unknown method or option, or lacks the method's section.
    """
    current = current_names(config)
    name = current["method"]["name"]
    return name, METHODS[name].Config.from_dict(current[section_of(name)])
