"""Speed of our readers, side by side with what one would use otherwise, in one run.

`python -m experiments.bench_readers` takes some minutes on two cores and 4 GB of disk; `--quick` is the same,
tiny. Sections:

images   a folder of JPEG files becomes one data set: our reader against torchvision's ImageFolder and a
         DataLoader that collects one tensor. Files are in the page cache for all, contestants take turns, and
         the median of the rounds counts. Ours also hashes each file and checks that it is whole.
opening  a file of 1 GB of pixels is opened and a random batch of it decoded: `open_dataset`, which maps the
         file, against `load_dataset`, which reads and verifies it. Each in a fresh process.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import PILToTensor

from gift_cl import DistilledDataset, load_dataset, open_dataset, save_dataset
from gift_cl.image_files import decode_image, read_header
from gift_cl.progress import silent
from gift_cl.readers.sre2l import SRe2LReader

_BATCH = 256


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much is measured.

    Args:
        classes: Classes of the folder.
        ipc: Images of each class.
        side: Height and width of an image, in pixels.
        rounds: Timed turns of each contestant.
        workers: Numbers of processes that read.
        file_mb: Megabytes of pixels in the file that is opened.
        isolated: Whether files are opened in fresh processes.
    """

    classes: int = 200
    ipc: int = 250
    side: int = 64
    rounds: int = 5
    workers: tuple[int, ...] = (1, 2)
    file_mb: int = 1000
    isolated: bool = True


QUICK = Sizes(classes=3, ipc=4, side=16, rounds=1, workers=(0, 1), file_mb=1, isolated=False)


def write_folder(root: Path, sizes: Sizes) -> int:
    """Write smooth noise as JPEG files of quality 75 in SRe2L's layout; mean bytes of a file."""
    num_bytes = 0
    for label in track(range(sizes.classes), description="writing JPEG files", transient=True):
        folder = root / f"new{label:03d}"
        folder.mkdir(parents=True)
        pixels = smooth_noise(sizes.ipc, sizes.side, seed=label).permute(0, 2, 3, 1).contiguous().numpy()
        for number, image in enumerate(pixels):
            file = folder / f"class{label:03d}_id{number:03d}.jpg"
            Image.fromarray(image).save(file, quality=75)
            num_bytes += file.stat().st_size
    return num_bytes // (sizes.classes * sizes.ipc)


def smooth_noise(num_images: int, side: int, *, seed: int) -> Tensor:
    """Coarse and fine noise, uint8 (N, 3, side, side): at 64 pixels about 1.6 kB as JPEG."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.zeros(num_images, 3, side, side)
    for cell, height in ((8, 200), (2, 55)):
        noise = torch.rand(num_images, 3, side // cell, side // cell, generator=generator)
        images += height * nn.functional.interpolate(noise, size=side, mode="bicubic")
    return images.clamp_(0, 255).to(torch.uint8)


def read_ours(folder: Path, workers: int, *, codec: str) -> DistilledDataset:
    """The folder by our reader."""
    return SRe2LReader(codec=codec, workers=workers).read(folder, ipc=None, progress=silent)


def read_torchvision(folder: Path, workers: int) -> Tensor:
    """The folder by torchvision, uint8 (N, 3, H, W)."""
    loader = DataLoader(
        ImageFolder(str(folder), transform=PILToTensor()), batch_size=_BATCH, num_workers=workers
    )
    return torch.cat([images for images, _ in loader])


CONTESTANTS: dict[str, Callable[[Path, int], object]] = {
    "torchvision": read_torchvision,
    "ours, to pixels": lambda folder, workers: read_ours(folder, workers, codec="raw"),
    "ours, as published": lambda folder, workers: read_ours(folder, workers, codec="files"),
}


def time_images(folder: Path, sizes: Sizes) -> dict[tuple[str, int], float]:
    """Images a second by contestant and number of workers."""
    files = list(folder.rglob("*.jpg"))
    for file in files:
        file.read_bytes()
    seconds: dict[tuple[str, int], list[float]] = {}
    for _ in track(range(sizes.rounds), description="reading", transient=True):
        for workers in sizes.workers:
            for name, read in CONTESTANTS.items():
                start = time.perf_counter()
                read(folder, workers)
                seconds.setdefault((name, workers), []).append(time.perf_counter() - start)
    return {key: len(files) / statistics.median(values) for key, values in seconds.items()}


def time_decoding(folder: Path) -> float:
    """Images a second when files in memory are decoded, in one process, and nothing else is done."""
    files = [file.read_bytes() for file in sorted(folder.rglob("*.jpg"))[:5000]]
    headers = [read_header(file) for file in files]
    start = time.perf_counter()
    for file, header in zip(files, headers, strict=True):
        decode_image(file, header)
    return len(files) / (time.perf_counter() - start)


@dataclass(frozen=True)
class Opening:
    """What it takes to open a file and to decode a random batch.

    Args:
        open_s: Seconds to open it.
        batch_s: Seconds for 256 images.
        own_mb: Megabytes of own memory more than before, after the batch.
        mapped_mb: Likewise, of files that are mapped; the system takes it back when it needs it.
    """

    open_s: float
    batch_s: float
    own_mb: float
    mapped_mb: float


def measure_opening(name: str, path: Path) -> Opening:
    """Open a file by `open_dataset` or `load_dataset`, in this process."""
    before, start = _resident_mb(), time.perf_counter()
    dataset = {"open_dataset": open_dataset, "load_dataset": load_dataset}[name](path)
    open_s = time.perf_counter() - start
    indices = torch.randint(len(dataset), (_BATCH,), generator=torch.Generator().manual_seed(0))
    start = time.perf_counter()
    int(dataset.select(indices).images.sum())
    batch_s, after = time.perf_counter() - start, _resident_mb()
    return Opening(open_s, batch_s, after[0] - before[0], after[1] - before[1])


def time_opening(folder: Path, sizes: Sizes) -> dict[str, Opening]:
    """Both ways to open a file of random pixels."""
    path = folder / "pixels.safetensors"
    count = max(1, sizes.file_mb * 1_000_000 // (3 * sizes.side**2))
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, sizes.side, sizes.side), dtype=torch.uint8, generator=generator)
    save_dataset(DistilledDataset.from_images(images, torch.arange(count) % 10, num_classes=10), path)
    del images
    results = {}
    for name in ("open_dataset", "load_dataset"):
        if sizes.isolated:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                results[name] = pool.apply(measure_opening, (name, path))
        else:
            results[name] = measure_opening(name, path)
    return results


def _resident_mb() -> tuple[float, float]:
    """Own memory, and that of mapped files, in megabytes."""
    lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    sizes = {words[0]: int(words[1]) * 1024 / 1e6 for words in lines if words[0].startswith("Rss")}
    return sizes["RssAnon:"] + sizes["RssShmem:"], sizes["RssFile:"]


def report_images(console: Console, sizes: Sizes, folder: Path) -> None:
    """Write a folder, read it in turns, and print the table."""
    mean_bytes = write_folder(folder / "images", sizes)
    rates = time_images(folder / "images", sizes)
    count = sizes.classes * sizes.ipc
    table = Table(title=f"{count:,} JPEG files of {sizes.side} x {sizes.side}, {mean_bytes} bytes each")
    for column in ("reader", "workers", "images a second", "of torchvision's"):
        table.add_column(column, justify="left" if column == "reader" else "right")
    for (name, workers), rate in rates.items():
        reference = rates["torchvision", workers]
        table.add_row(name, str(workers), f"{rate:,.0f}", f"{rate / reference:.2f}x")
    table.add_row("decoding alone, no files", "one process", f"{time_decoding(folder):,.0f}", "")
    console.print(table)


def report_opening(console: Console, sizes: Sizes, folder: Path) -> None:
    """Write a file, open it both ways, and print the table."""
    table = Table(title=f"a file of {sizes.file_mb:,} MB of pixels, and a random batch of {_BATCH} from it")
    for column in ("by", "s to open", "ms a batch", "MB of memory", "MB mapped"):
        table.add_column(column, justify="left" if column == "by" else "right")
    for name, result in time_opening(folder, sizes).items():
        cells = (f"{result.batch_s * 1000:.1f}", f"{result.own_mb:.0f}", f"{result.mapped_mb:.0f}")
        table.add_row(name, f"{result.open_s:.3f}", *cells)
    console.print(table)


SECTIONS: dict[str, Callable[[Console, Sizes, Path], None]] = {
    "images": report_images,
    "opening": report_opening,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.bench_readers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "sections", nargs="*", metavar="SECTION", help=f"{', '.join(SECTIONS)} (default: all)"
    )
    parser.add_argument("--quick", action="store_true", help="a few tiny images; the figures mean nothing")
    parser.add_argument(
        "--images", type=int, default=50_000, help="JPEG files, of 200 classes (default: 50,000)"
    )
    parser.add_argument("--rounds", type=int, default=5, help="timed turns of each reader (default: 5)")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="processes (default: 1 2)")
    parser.add_argument(
        "--folder", type=Path, help="where files are written for a while (default: as tempfile)"
    )
    options = parser.parse_args(arguments)
    if unknown := set(options.sections) - SECTIONS.keys():
        parser.error(f"Unknown sections: {', '.join(sorted(unknown))}. Known: {', '.join(SECTIONS)}.")
    sizes = QUICK
    if not options.quick:
        ipc = max(1, options.images // Sizes.classes)
        sizes = Sizes(ipc=ipc, rounds=options.rounds, workers=tuple(options.workers))
    console = Console()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for name, report in SECTIONS.items():
            if not options.sections or name in options.sections:
                report(console, sizes, Path(folder))


if __name__ == "__main__":
    main()
