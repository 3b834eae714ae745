"""The wheel: holds exactly the packages, and works without the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {"s2v_cli": "s2v_cli", "training": "s2v_cli/training", "presets": "s2v_cli/presets"}
LITTER = shutil.ignore_patterns("__pycache__", "*.pyc", "*.egg-info")


def run(*command: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "S2V_"))}
    return subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={**clean, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


def copy_sources(target: Path) -> Path:
    """A copy to build in: setuptools leaves build/ and egg-info behind, and reads stale ones."""
    target.mkdir()
    for name in (*PACKAGES, "tests", "examples", "docs", "benchmarks"):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target / name, ignore=LITTER)
    for name in ("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md"):
        shutil.copy2(ROOT / name, target)
    return target


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    source = copy_sources(folder / "source")
    built = run(
        sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, source,
        cwd=folder,
    )  # fmt: skip
    assert built.returncode == 0, built.stdout + built.stderr
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment with the wheel in it; third-party packages come from the running one.

    A path in a .pth file is only added to sys.path: the .pth of an editable install behind it is
    not read, so the checkout stays out of reach.
    """
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=os.name != "nt")
    python = folder / "bin" / "python"
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(run(python, "-c", ask, cwd=folder).stdout.strip())
    paths = sysconfig.get_paths()
    (site / "behind.pth").write_text(f"{paths['purelib']}\n{paths['platlib']}\n", encoding="utf-8")
    done = run(
        sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index",
        "--disable-pip-version-check", wheel, cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def expected_files() -> set[str]:
    """What the wheel must hold besides its dist-info: all code, and the data beside it."""
    files = {"s2v_cli/py.typed", "s2v_cli/weights/catalogue.toml"}
    files |= {f"s2v_cli/fonts/{path.name}" for path in (ROOT / "s2v_cli/fonts").iterdir()}
    for source, target in PACKAGES.items():
        files |= {
            f"{target}/{path.relative_to(ROOT / source).as_posix()}"
            for path in (ROOT / source).rglob("*.py")
        }
    files |= {f"s2v_cli/presets/{path.name}" for path in (ROOT / "presets").glob("*.toml")}
    files |= {f"s2v_cli/presets/mini/{path.name}" for path in (ROOT / "presets/mini").iterdir()}
    files |= {
        f"s2v_cli/training/recipes/{path.name}"
        for path in (ROOT / "training/recipes").glob("*.toml")
    }
    files |= {
        f"s2v_cli/training/evaluation/page/{path.name}"
        for path in (ROOT / "training/evaluation/page").iterdir()
    }
    return files | {"s2v_cli/training/prepare/class_lists.toml"}


def test_contents(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
    info = {name for name in names if name.split("/")[0].endswith(".dist-info")}
    assert names - info == expected_files()
    assert any(name.endswith(".safetensors") for name in names), "the bundled weights are missing"
    assert {name.partition("/")[2] for name in info} == {
        "METADATA",
        "RECORD",
        "WHEEL",
        "entry_points.txt",
        "licenses/LICENSE",
        "top_level.txt",
    }


def test_name_and_version(wheel: Path) -> None:
    import s2v_cli

    assert wheel.name == f"s2v_cli-{s2v_cli.__version__}-py3-none-any.whl"


def test_it_is_the_wheel_that_runs(installed: Path, tmp_path: Path) -> None:
    code = (
        "import s2v_cli, s2v_cli.presets, s2v_cli.training as training;"
        "print(s2v_cli.__file__, s2v_cli.presets.__file__, training.__file__, sep='\\n')"
    )
    result = run(installed / "bin" / "python", "-c", code, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    for line in result.stdout.split():
        assert Path(line).is_relative_to(installed)


def test_gen_from_another_folder(installed: Path, tmp_path: Path) -> None:
    from PIL import Image

    # a user's own folders with our folders' names must not be picked up
    for name in ("training", "presets"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError", encoding="utf-8")
    shutil.copy(ROOT / "examples" / "rain.wav", tmp_path)
    result = run(
        installed / "bin" / "s2v", "gen", "rain.wav", "-o", "out.png",
        cwd=tmp_path, S2V_HOME=str(tmp_path / "home"),
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["out.png"]
    with Image.open(tmp_path / "out.png") as picture:
        assert picture.size == (128, 128)


@pytest.mark.slow
def test_the_source_archive_builds_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    source = copy_sources(tmp_path / "source")
    built = run(
        sys.executable, "-m", "build", "--no-isolation", "--outdir", tmp_path / "out", source,
        cwd=tmp_path,
    )  # fmt: skip
    assert built.returncode == 0, built.stdout + built.stderr
    (second,) = (tmp_path / "out").glob("*.whl")
    with zipfile.ZipFile(wheel) as one, zipfile.ZipFile(second) as other:
        assert sorted(one.namelist()) == sorted(other.namelist())
