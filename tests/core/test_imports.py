import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
ALLOWED = {
    "gift_cl": {"gift_cl"},
    "strategies": {"gift_cl", "strategies"},
    "experiments": {"gift_cl", "strategies", "experiments"},
}


def imported(file: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.partition(".")[0])
    return names


def test_imports_go_one_way() -> None:
    for folder, allowed in ALLOWED.items():
        files = list((ROOT / folder).rglob("*.py"))
        assert files
        for file in files:
            assert imported(file) & ALLOWED.keys() <= allowed, file


def test_the_core_knows_no_avalanche() -> None:
    for file in (ROOT / "gift_cl").rglob("*.py"):
        assert "avalanche" not in imported(file), file


def test_importing_the_core_is_light() -> None:
    code = (
        "import sys, time, torch; start = time.perf_counter(); import gift_cl; "
        "print(time.perf_counter() - start); "
        "heavy = {'avalanche', 'wandb', 'torchvision', 'matplotlib', 'sklearn', 'scipy'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def test_the_core_adds_at_most_a_tenth_to_the_import_of_torch() -> None:
    code = (
        "import time; a = time.perf_counter(); import torch; b = time.perf_counter(); import gift_cl; "
        "c = time.perf_counter(); print((c - b) / (b - a))"
    )
    shares = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
        for _ in range(3)
    ]
    assert min(shares) <= 0.10, shares
