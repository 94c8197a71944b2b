"""Configs made from text, without a file system. This module refuses to look at what is installed on the machine."""

from pathlib import Path
from textwrap import dedent
from typing import Final

import pytest

from broker.config.document import parse
from broker.config.loader import build
from broker.config.model import Config
from broker.config.problems import InvalidConfigError
from broker.paths import Mode

TYPES: Final = frozenset({"sealed", "vault", "keyring"})
FILE: Final = Path("broker.toml")
UID: Final = 1000


def config(*texts: str, mode: Mode = "user") -> Config:
    """Return what these files say together: ``broker.toml``, ``1.toml``, ``2.toml`` and so on."""
    names = [FILE, *(Path(f"{number}.toml") for number in range(1, len(texts)))]
    documents = [parse(dedent(text), name) for text, name in zip(texts, names, strict=True)]
    return build(documents, mode=mode, uid=UID, types=TYPES)


def problems(*texts: str, mode: Mode = "user") -> list[str]:
    """Return what is wrong with these files, each with its hint."""
    with pytest.raises(InvalidConfigError) as caught:
        config(*texts, mode=mode)
    return [f"{problem} ({problem.hint})" if problem.hint else str(problem) for problem in caught.value.problems]
