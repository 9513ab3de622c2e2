import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_wheel_holds_the_packages_and_imports_from_another_folder(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path)]
    subprocess.run([*build, str(ROOT)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        folders = {name.partition("/")[0] for name in archive.namelist()}
        archive.extractall(site)
    assert {folder for folder in folders if not folder.endswith(".dist-info")} == {"gift_cl", "strategies"}
    code = (
        f"import sys; sys.path.insert(0, {str(site)!r}); import gift_cl; "
        f"assert gift_cl.__file__.startswith({str(site)!r}), gift_cl.__file__; "
        "gift_cl.gift_loss; import warnings; warnings.simplefilter('ignore'); import strategies; "
        f"assert strategies.__file__.startswith({str(site)!r}); strategies.GIFTPlugin"
    )
    run = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
