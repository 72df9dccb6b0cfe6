"""Plugins: listed without an import, loaded by name, and refused loudly."""

import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from outlearn.errors import PluginError
from outlearn.registry import METHODS, RESEARCHERS, SERVERS, Registry
from outlearn.researcher import make_researcher

GROUP = "outlearn.tests"
Package = Callable[..., Path]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Package:
    """Installs a package of one module with these entry points in a group."""

    def install(name: str, source: str, group: str = GROUP, **points: str) -> Path:
        folder = tmp_path / name
        info = folder / f"{name}-1.2.dist-info"
        info.mkdir(parents=True)
        (folder / f"{name}.py").write_text(source)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
        lines = [f"{point} = {target}" for point, target in points.items()]
        (info / "entry_points.txt").write_text("\n".join([f"[{group}]", *lines]) + "\n")
        monkeypatch.syspath_prepend(folder)
        return folder

    return install


def test_listing_imports_nothing(package: Package) -> None:
    package("plug_listed", "raise SystemExit('imported')", one="plug_listed:run", two="plug_listed:walk")
    registry = Registry(GROUP)
    assert registry.names() == ["one", "two"]
    described = [(one.name, one.target, one.distribution, one.version) for one in registry.describe()]
    assert described == [
        ("one", "plug_listed:run", "plug_listed", "1.2"),
        ("two", "plug_listed:walk", "plug_listed", "1.2"),
    ]
    assert "plug_listed" not in sys.modules


def test_a_plugin_is_loaded_by_name(package: Package) -> None:
    package("plug_loaded", "def run():\n    return 42\n", one="plug_loaded:run")
    assert Registry(GROUP).load("one")() == 42


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import no_such_module_at_all", "no_such_module_at_all"),
        ("1 / 0", "ZeroDivisionError"),
        ("def other(): ...", "run"),
        ("def broken(:", "SyntaxError"),
    ],
)
def test_a_broken_plugin_is_named_with_its_package_and_the_reason(package: Package, source: str, reason: str) -> None:
    name = f"plug_broken_{abs(hash(source))}"
    package(name, source, one=f"{name}:run")
    with pytest.raises(PluginError, match=f"'one' in '{GROUP}', from {name} 1.2, fails to load: .*{reason}") as failed:
        Registry(GROUP).load("one")
    assert failed.value.__cause__ is not None


def test_a_researcher_that_takes_no_options_is_told_that_it_must(package: Package) -> None:
    source = "class Bare: ...\n\n\nclass Good:\n    def __init__(self, options):\n        self.options = options\n"
    package("plug_researchers", source, RESEARCHERS, bare="plug_researchers:Bare", good="plug_researchers:Good")
    with pytest.raises(PluginError, match="the researcher 'bare' must take one argument, its options, a mapping"):
        make_researcher("bare", {})
    assert vars(make_researcher("good", {"a": "b"})) == {"options": {"a": "b"}}


def test_one_name_from_two_packages_is_refused(package: Package) -> None:
    package("plug_first", "", one="plug_first:run")
    package("plug_second", "", one="plug_second:run")
    with pytest.raises(PluginError, match=r"two packages register 'one' .*plug_(first|second) 1\.2"):
        Registry(GROUP)


def test_one_package_found_twice_on_the_path_is_no_conflict(package: Package, tmp_path: Path) -> None:
    package("plug_twice", "", one="plug_twice:run")
    sys.path.append(str(tmp_path / "elsewhere"))
    try:
        (tmp_path / "elsewhere").symlink_to(tmp_path / "plug_twice")
        assert Registry(GROUP).names() == ["one"]
    finally:
        sys.path.remove(str(tmp_path / "elsewhere"))


def test_an_unknown_plugin_is_answered_with_what_there_is(package: Package) -> None:
    package("plug_known", "", one="plug_known:run", two="plug_known:run")
    with pytest.raises(PluginError, match=r"no 'three' in 'outlearn\.tests'; there are: one, two"):
        Registry(GROUP).load("three")
    with pytest.raises(PluginError, match="there are: none"):
        Registry("outlearn.nothing").load("x")


@pytest.mark.parametrize(
    ("group", "names"),
    [
        (SERVERS, {"training", "evaluation", "forum", "filesystem"}),
        (METHODS, {"vanilla", "confident", "logconf", "ue_zeroshot", "critic", "probe"}),
        (RESEARCHERS, {"offline", "claude"}),
    ],
)
def test_the_built_ins_come_through_the_same_door(group: str, names: set[str]) -> None:
    assert names <= set(Registry(group).names())
    assert {point.name for point in entry_points(group=group)} >= names
