"""The benchmarks still fit the code: names that have moved would be found out months later, when they are run again."""

import importlib
from pathlib import Path

import pytest

from benchmarks import features
from tests.support.service import ROOT

MODULES = [path.stem for path in sorted((ROOT / "benchmarks").glob("[!_]*.py"))]


@pytest.mark.parametrize("name", [name for name in MODULES if name != "without"])
def test_a_module_can_be_imported(name: str) -> None:
    importlib.import_module(f"benchmarks.{name}")


@pytest.mark.parametrize("variant", features.VARIANTS)
def test_a_service_less_this_feature_shows_all_others(variant: str, tmp_path: Path) -> None:
    features.check_one(variant, {"SYS_ENV": "test", "DATA_DIR": str(tmp_path)})
