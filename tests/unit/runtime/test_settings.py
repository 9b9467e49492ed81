"""The configuration file: what it does to a container, and what it says about a mistake."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from runtime import settings
from runtime.errors import InvalidArgument, InvalidSpec


def write(folder: Path, text: str) -> str:
    path = folder / "config.yaml"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("load", [settings.load, settings.load_apart])
def test_defaults_and_what_is_allowed(tmp_path: Path, load: Any) -> None:
    path = write(tmp_path, "defaults:\n  vcpus: 2\n  memory: 512m\n  trace: true\nallow: [vcpus]\n")
    config: dict[str, Any] = {"annotations": {"dev.litebox.vcpus": "4", "org.example": "x"}}
    load(path).apply(config)
    assert config["annotations"] == {
        "dev.litebox.vcpus": "4",
        "org.example": "x",
        "dev.litebox.memory": "512m",
        "dev.litebox.trace": "true",
    }
    with pytest.raises(InvalidSpec, match=r"dev\.litebox\.trace.*allowed: dev\.litebox\.vcpus"):
        load(path).apply({"annotations": {"dev.litebox.trace": "true"}})


def test_the_sample_is_right() -> None:
    config: dict[str, Any] = {}
    settings.load(str(Path(__file__).parents[3] / "deploy" / "config.yaml")).apply(config)
    assert config == {"annotations": {"dev.litebox.vcpus": "2"}}


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    config: dict[str, Any] = {"annotations": {"dev.litebox.debug": "true"}}
    settings.load(write(tmp_path, "# nothing\n")).apply(config)
    assert config == {"annotations": {"dev.litebox.debug": "true"}}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("defaults:\n  vcpus: many\n", ":2: defaults.vcpus: 'many' is not of type 'integer'"),
        ("defaults:\n  vcpus: 1\n  cores: 2\n", ":3: defaults.cores: unknown; allowed: debug, init, memory"),
        ("allow:\n  - vcpus\n  - root\n", ":3: allow.1: 'root' is not one of"),
        ("default: {}\n", ":1: default: unknown; allowed: defaults, allow"),
        ("defaults:\n  memory: lots\n", ":2: defaults.memory: 'lots' does not match"),
        ("[1, 2]\n", ":1: the file: [1, 2] is not of type 'object'"),
        ("defaults: {\n  vcpus: ]\n", ":2: "),
    ],
)
def test_mistakes_have_a_line_and_a_key(tmp_path: Path, text: str, said: str) -> None:
    path = write(tmp_path, text)
    for load in (settings.load, settings.load_apart):
        with pytest.raises(InvalidArgument) as caught:
            load(path)
        assert str(caught.value).startswith(path + said)


def test_a_file_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITEBOX_CONFIG", str(tmp_path / "absent"))
    with pytest.raises(InvalidArgument, match="absent: No such file"):
        settings.load_apart(settings.path_in_use())
    monkeypatch.delenv("LITEBOX_CONFIG")
    monkeypatch.setattr(settings, "DEFAULT_PATH", str(tmp_path / "absent"))
    assert settings.path_in_use() == ""
