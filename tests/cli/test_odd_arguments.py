"""Every option of every program with values that nobody means: accepted, or refused by a sentence."""

from __future__ import annotations

import time
import zlib
from pathlib import Path

import pytest
from support.sentences import is_sentence
from support.thorough import more

from siamtransfer.cli.failures import sentence_of
from siamtransfer.cli.main import PROGRAMS, program
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.text import sentence

pytestmark = pytest.mark.fault

VALUES = (
    *(
        "-1",
        "0",
        "1e3",
        "nan",
        "inf",
        "-inf",
        "1e400",
        "1e-400",
        "18446744073709551616",
        "1000000000000",
        "1_000",
    ),
    *("", "null", "true", "'", "%", "=", "--", "~", "~nobody-here/x", "/dev/zero", "0x10", "010", "9" * 5000),
    *(
        "[",
        "{",
        "[[]]",
        "{a: b}",
        "[1,2",
        "[nan]",
        "[]",
        "&a [*a]",
        "!!python/object:os.getcwd {}",
        "a" * 5000,
    ),
    *("\udcff", "a\nb", "\x1b[31m", "\0"),
)


def refused(name: str, words: list[str]) -> bool:
    """Whether the program refuses the words, by a sentence as a program prints it."""
    try:
        config = program(name).parse(words)
        if hasattr(config, "check"):
            config.check()
    except UserError as error:
        assert is_sentence(UserError(sentence(str(error)))), (words, str(error)[:200])
        return True
    except OSError as error:  # a name that is too long for the disk; `run` has the sentence
        assert is_sentence(UserError(sentence(str(sentence_of(error))))), words
        return True
    except SystemExit as end:
        assert end.code == 0
    return False


def tried(name: str, share: int) -> list[list[str]]:
    """Words of one option each: of every option one value of `share`, all of them where it is 1."""
    every = [[flag, value] for flag in program(name).flags() for value in VALUES] + [
        [value] for value in VALUES
    ]
    return [words for words in every if zlib.crc32(ascii((name, words)).encode()) % share == 0]


@pytest.mark.parametrize(
    ("name", "share"),
    [
        *((name, 2000 if name == "pretrain" else 200) for name in PROGRAMS),
        *(more(name, 1) for name in PROGRAMS),
    ],
)
def test_odd_values_of_any_option(name: str, share: int) -> None:
    results = [refused(name, words) for words in tried(name, share)]
    assert share > 1 or sum(results) > len(VALUES)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--optim.lr", "1e400"], "optim.lr is 1e400, beyond the range of numbers"),
        (["--optim.lr", "nan"], "optim.lr is 'nan', but must be NUMBER"),
        (["--optim.epochs", "inf"], "optim.epochs is 'inf', but must be auto|INT"),
        (["--run.seed", "18446744073709551616"], "run.seed is 18446744073709551616, but must be from 0 to"),
        (["--run.seed", str(2**62)], "but must be from 0 to 4611686018427387903"),
        (["--run.seed", "-1"], "run.seed is -1, but must be from 0"),
        (["--run.seed", "1e3"], "run.seed is '1e3', but must be INT"),
        (["--views.size", "100000000"], "views.size is 100000000, but must be at most 16384"),
        (["--backbone.width", "1000000000"], "backbone.width is 1000000000, but must be at most 8192"),
        (["--data.workers", "100000"], "data.workers is 100000, but must be at most 4096"),
        (["--optim.epochs", str(10**12)], f"optim.epochs is {10**12}, but must be at most 10000000"),
        (["--data.workers", "-1"], "data.workers is -1, but must be at least 0"),
        (["--data.root", "~nobody-here/x"], "there is no user nobody-here"),
    ],
)
def test_numbers_of_pretraining_that_mean_nothing(words: list[str], said: str) -> None:
    with pytest.raises(UserError) as caught:
        program("pretrain").parse(words).check()
    assert said in str(caught.value)


def test_a_word_of_many_digits_is_looked_at_once() -> None:
    began = time.process_time()
    with pytest.raises(UserError, match="but must be NUMBER"):
        program("pretrain").parse(["--optim.lr", "1" * 50_000 + "x"])
    assert time.process_time() - began < 10


def test_the_largest_seed_is_a_seed_of_every_program() -> None:
    assert program("pretrain").parse(["--run.seed", str(2**62 - 1)]).run.seed == 2**62 - 1
    for name in PROGRAMS:
        if "--seed" in program(name).flags():
            assert refused(name, ["--seed", "-1"])
            assert program(name).parse(["--seed", str(2**62 - 1)]).seed == 2**62 - 1


def test_what_the_machine_refuses_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OSError, match="too long") as long:
        (tmp_path / ("a" * 300)).stat()
    assert str(sentence_of(long.value)).startswith(f"{tmp_path / ('a' * 300)}: File name too long; with ")
    assert "not enough memory (Unable to allocate" in str(
        sentence_of(MemoryError("Unable to allocate 9 TiB"))
    )
    asked = RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4000 bytes.")
    assert "not enough memory (DefaultCPUAllocator" in str(sentence_of(asked))
    for defect in (RuntimeError("shapes differ"), ValueError("x"), OSError("no number")):
        assert sentence_of(defect) is None
    monkeypatch.setenv("SIAMTRANSFER_TRACEBACK", "1")
    assert sentence_of(long.value) is None


def test_long_words_and_control_characters_of_a_message() -> None:
    assert sentence("a\nb\x1b[31m \u202e ü 日本") == r"a\nb\x1b[31m \u202e ü 日本"
    assert sentence(f"no {'x' * 5000} here") == f"no {'x' * 100}…{'x' * 100} here"
    assert sentence("/" + "x" * 300) == "/" + "x" * 300
