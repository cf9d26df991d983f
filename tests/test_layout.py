"""Every module has its test file, named as the module is."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = [path.relative_to(ROOT / "injector") for path in sorted((ROOT / "injector").rglob("[!_]*.py"))]
TESTS = {path.stem for path in (ROOT / "tests").rglob("test_*.py")}


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_a_module_has_a_test_file_of_its_name(module: Path) -> None:
    """`tls/source.py` has `test_source.py` or, where the name alone says little, `test_tls_source.py`."""
    assert TESTS & {f"test_{module.stem}", f"test_{module.parent.name}_{module.stem}"}
