"""A program: a name, a configuration class, and the work that a configuration asks for."""

from __future__ import annotations

import dataclasses
import itertools
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import yaml

from siamtransfer.cli import help as helps
from siamtransfer.cli.home import expand_word
from siamtransfer.cli.options import Option
from siamtransfer.cli.output import without_flags
from siamtransfer.cli.parser import (
    Schema,
    Settings,
    build,
    parse_values,
    settings_of_file,
    settings_of_tree,
    settings_of_words,
)
from siamtransfer.cli.shipped import find_config
from siamtransfer.cli.yaml_file import read_yaml
from siamtransfer.metering.meter import metered
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.strict_json import flatten
from siamtransfer.utils.workers import explained_workers

C = TypeVar("C")
Record = dict[str, Any]


@dataclass(frozen=True)
class Command(Generic[C]):
    """A program of the command line; called with words (sys.argv's without any) it returns its record.

    Attributes:
        config: a dataclass; `cli.options` says how its fields become options. It may define `check()`, and
            where its sections depend on what is set, `extend(schema, words, trees) -> forced values` and
            `assemble(values) -> config`; `base_trees(words)` gives settings that come before all others, and
            `choose_default(words, schema)` the name of another default configuration than `default_config`,
            or None (siamtransfer/config/ and programs/pretrain.py have examples).
        work: what the program does with a configuration; imports what it needs when it is called.
        doc: the description in the help.
        kinds: folders of configs/ in which --config NAME looks.
        default_config: the shipped configuration that is read where no other is given.
    """

    name: str
    config: type[C]
    work: Callable[[C], Record | None]
    doc: str
    kinds: tuple[str, ...] = ()
    default_config: str | None = None

    def __call__(self, argv: Sequence[str] | None = None) -> Record | None:
        """Parses the words and does the work, whose cost is counted; returns the record on rank 0."""
        config = self.parse(argv)
        workers = next((flag for flag in self.flags() if flag.endswith("workers")), None)
        with metered(), explained_workers(workers):
            return self.work(config)

    def parse(self, argv: Sequence[str] | None = None) -> C:
        """The configuration that the words describe, not yet checked.

        Raises:
            UserError: a mistake, in one sentence.
            SystemExit: help or the settings were asked for, and printed.
        """
        words = [expand_word(str(word)) for word in (sys.argv[1:] if argv is None else argv)]
        schema = Schema(self.config)
        words = without_flags(words, schema.options)
        if any(word in ("--help", "-h", "--help-all") for word in words):
            self._print_help(words, schema)
        base: dict[str, Any] = getattr(self.config, "base_trees", lambda words: {})(words)
        files = [str(find_config(file, self.kinds)) for file in _config_files(words, schema)]
        if not files and not base and (default := self._default(words, schema)) is not None:
            files = [str(find_config(default, self.kinds))]
            words = ["--config", files[0], *words]
        extend = getattr(self.config, "extend", None)
        trees = base | {file: read_yaml(Path(file)) for file in files}
        forced = extend(schema, words, trees) if extend else {}
        show = "--print-config" in words or "--print_config" in words
        words = [word for word in words if word not in ("--print-config", "--print_config")]
        settings = [settings_of_tree(origin, tree, schema) for origin, tree in base.items()]
        settings += [
            group
            if isinstance(group, Settings)
            else settings_of_file(str(find_config(group, self.kinds)), schema)
            for group in settings_of_words(words, schema)
        ]
        values = parse_values(settings, schema) | forced
        assemble = getattr(self.config, "assemble", None)
        config = assemble(values) if assemble else build(self.config, values)
        if show:
            self._print_settings(config)
        return config

    def _default(self, words: Sequence[str], schema: Schema) -> str | None:
        """The shipped configuration that is read where no other is given."""
        choose = getattr(self.config, "choose_default", lambda words, schema: None)
        chosen: str | None = choose(words, schema)
        return chosen or self.default_config

    def flags(self) -> list[str]:
        """Every option's flag, for shell completion."""
        return [option.flag for option in Schema(self.config).options.values() if not option.positional]

    def described(self) -> tuple[list[Option], dict[str, Any]]:
        """Every option, and the defaults that the default configuration puts in place of the options' own."""
        schema = Schema(self.config)
        return list(schema.options.values()), self._defaults_of_files((), schema)

    def _defaults_of_files(self, words: Sequence[str], schema: Schema) -> dict[str, Any]:
        """What the files of settings that the words name say, else what the default configuration says."""
        files = [find_config(file, self.kinds) for file in _config_files(words, schema)]
        if not files and self.default_config is not None:
            files = [find_config(self.default_config, self.kinds)]
        defaults: dict[str, Any] = {}
        for file in files:
            tree = {schema.canonical(key): value for key, value in flatten(read_yaml(file)).items()}
            defaults |= {key: value for key, value in tree.items() if key in schema.options}
        return defaults

    def _print_help(self, words: Sequence[str], schema: Schema) -> None:
        topics = [word for word in words if not word.startswith("-")]
        section = getattr(self.config, "section_of_topic", lambda topic: None)(topics[0]) if topics else None
        if section is not None:
            name, kind = section
            schema.add_section(name, kind)
            own = [option for key, option in schema.options.items() if key.startswith(f"{name}.")]
            print(helps.section_help(name, own))
            sys.exit(0)
        defaults = self._defaults_of_files(words, schema)
        write = helps.full_help if "--help-all" in words else helps.short_help
        more = getattr(self.config, "more_help", str)()
        print(write(self.name, self.doc, list(schema.options.values()), defaults, more))
        sys.exit(0)

    def _print_settings(self, config: C) -> None:
        as_dict = getattr(config, "as_dict", None)
        tree = as_dict() if as_dict else dataclasses.asdict(config)  # type: ignore[call-overload]
        print(yaml.safe_dump(tree, sort_keys=False, default_flow_style=None), end="")
        sys.exit(0)


def _config_files(words: Sequence[str], schema: Schema) -> list[str]:
    """The files of settings that --config names, in order; none where --config is an option of the
    program."""
    if "config" in schema.options:
        return []
    pairs = itertools.zip_longest(words, words[1:], fillvalue="")
    files = [
        after if word == "--config" else word.removeprefix("--config=")
        for word, after in pairs
        if word == "--config" or word.startswith("--config=")
    ]
    if "" in files:
        raise UserError("--config needs a value")
    return files
