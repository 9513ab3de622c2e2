import argparse
import io
import os
import pickle
import resource
import sys
import tarfile
import time
import warnings
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from gift_cl.errors import DamagedFileError, ReadError, UnsafeFileError
from gift_cl.torch_files import load_torch

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16]
DTYPES += [torch.int8, torch.uint8, torch.bool]
FORMATS = pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
_counter = iter(range(10**9))


class Call:
    """Asks to be made again by a call of ``function``."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data.pt"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files")


def save(contents: object, path: Path, *, is_zip: bool = True) -> None:
    torch.save(contents, path, _use_new_zipfile_serialization=is_zip)


def write_archive(
    path: Path, program: bytes, storages: dict[str, bytes] | None = None, **records: bytes
) -> Path:
    """A file as torch writes it, of any pickle (without protocol and end) and any records."""
    contents = {"data.pkl": b"\x80\x02" + program + b".", "byteorder": b"little", "version": b"3\n"}
    contents |= {f"data/{key}": value for key, value in (storages or {}).items()} | records
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in contents.items():
            archive.writestr(f"archive/{name.replace('__', '/')}", data)
    return path


def named(name: str) -> bytes:
    module, _, member = name.rpartition(".")
    return f"c{module}\n{member}\n".encode()


def text(value: str) -> bytes:
    return b"X" + len(value).to_bytes(4, "little") + value.encode()


def number(value: int) -> bytes:
    data = value.to_bytes((value.bit_length() + 8) // 8, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def tensor(
    count: int, size: list[int], stride: list[int], *, offset: int = 0, kind: str = "torch.FloatStorage"
) -> bytes:
    """The program of a tensor in storage ``0`` of ``count`` numbers."""
    storage = b"(" + text("storage") + named(kind) + text("0") + text("cpu") + number(count) + b"tQ"
    lengths = b"".join(b"(" + b"".join(map(number, numbers)) + b"t" for numbers in (size, stride))
    hooks = named("collections.OrderedDict") + b")R"
    return (
        named("torch._utils._rebuild_tensor_v2")
        + b"("
        + storage
        + number(offset)
        + lengths
        + b"\x89"
        + hooks
        + b"tR"
    )


@contextmanager
def within_bounds() -> Iterator[None]:
    """What runs here takes less than 5 s of processor time, and makes the process less than 200 MB larger."""
    start, largest = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert time.process_time() - start < 5
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - largest
    assert grown < 200_000 * (1024 if sys.platform == "darwin" else 1)


def assert_equal(found: object, expected: object) -> None:
    """Equal in kind and value, bit by bit, with the same strides."""
    assert type(found) is type(expected)
    if isinstance(found, Tensor) and isinstance(expected, Tensor):
        assert found.dtype == expected.dtype
        assert (found.shape, found.stride()) == (expected.shape, expected.stride())
        assert found.contiguous().numpy(force=True).tobytes() == expected.contiguous().numpy().tobytes()
    elif isinstance(found, dict) and isinstance(expected, dict):
        assert list(map(repr, found)) == list(map(repr, expected))
        for one, other in zip(found.values(), expected.values(), strict=True):
            assert_equal(one, other)
    elif isinstance(found, (list, tuple)) and isinstance(expected, (list, tuple)):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_equal(one, other)
    else:
        assert repr(found) == repr(expected)


# What `torch.load` makes of the same file is the oracle.


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    shape = draw(st.lists(st.integers(0, 4), max_size=4))
    dtype = draw(st.sampled_from([dtype for dtype in DTYPES if dtype != torch.bfloat16]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    values = (torch.randn(shape, generator=generator) * 50).to(dtype)
    match draw(st.sampled_from(["whole", "part", "transposed"])):
        case "part" if values.ndim:
            return values[1:]
        case "transposed" if values.ndim > 1:
            return values.transpose(0, -1)
    return values


scalars = st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats() | st.text(max_size=9)
keys = st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats() | st.text(max_size=9)
contents_of_files = st.recursive(
    scalars | tensors() | st.binary(min_size=1, max_size=9),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(keys, inner, max_size=4)
        | st.dictionaries(keys, inner, max_size=4).map(OrderedDict)
        | st.lists(st.integers(0, 5), max_size=5).map(Counter)
        | st.lists(st.integers(0, 5), max_size=5).map(torch.Size)
    ),
    max_leaves=9,
)


@settings(max_examples=150, deadline=None)
@given(contents=contents_of_files, is_zip=st.booleans())
def test_contents_are_those_that_torch_reads(folder: Path, contents: object, is_zip: bool) -> None:
    path = folder / f"{next(_counter)}.pt"
    save(contents, path, is_zip=is_zip)
    assert_equal(load_torch(path, legacy=True), torch.load(path, weights_only=True))


@FORMATS
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_type_of_number_is_read(path: Path, dtype: torch.dtype, is_zip: bool) -> None:
    values = torch.tensor([[0.0, 1.0, 3.0]]).to(dtype)
    save([values, values[:, 1:], torch.zeros(0, 2, dtype=dtype)], path, is_zip=is_zip)
    found = load_torch(path, legacy=True)
    assert isinstance(found, list)
    torch.testing.assert_close(found[0], values, rtol=0, atol=0)
    torch.testing.assert_close(found[1], values[:, 1:], rtol=0, atol=0)
    assert (found[2].shape, found[2].dtype) == ((0, 2), dtype)


@FORMATS
def test_state_dict_of_a_network_is_read(path: Path, is_zip: bool) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    save(network.state_dict(), path, is_zip=is_zip)
    assert_equal(load_torch(path, legacy=True), OrderedDict(network.state_dict()))


@FORMATS
def test_parameters_come_back_as_torch_reads_them(path: Path, is_zip: bool) -> None:
    save([nn.Parameter(torch.tensor([3.0])), torch.tensor([1.0], requires_grad=True)], path, is_zip=is_zip)
    parameter, leaf = cast(list[Tensor], load_torch(path, legacy=True))
    assert isinstance(parameter, nn.Parameter)
    assert (parameter.tolist(), leaf.tolist(), leaf.requires_grad) == ([3.0], [1.0], True)


def test_optimizer_with_its_scheduler_is_read(path: Path) -> None:
    network = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [2, 3, 3])
    network(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    contents = {"optimizer": optimizer.state_dict(), "milestones": scheduler.state_dict()["milestones"]}
    save(contents, path)
    assert_equal(load_torch(path), contents)


@FORMATS
def test_tensors_that_share_memory_still_do(path: Path, is_zip: bool) -> None:
    base = torch.arange(6.0)
    save({"all": base, "odd": base[1::2]}, path, is_zip=is_zip)
    found: Any = load_torch(path, legacy=True)
    found["all"][3] = 9
    assert found["odd"].tolist() == [1, 9, 5]


@FORMATS
def test_list_that_holds_itself_is_read(path: Path, is_zip: bool) -> None:
    contents: list[object] = [torch.ones(2)]
    contents += [contents, {"again": contents}]
    save(contents, path, is_zip=is_zip)
    found: Any = load_torch(path, legacy=True)
    assert found[1] is found
    assert found[2]["again"] is found


def test_path_may_be_a_string(path: Path) -> None:
    save([1], path)
    assert load_torch(str(path)) == [1]


def test_checking_takes_no_memory_for_tensors(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save([torch.ones(1000), torch.ones(500, dtype=torch.int64)], path)
    places, empty = [], torch.empty

    def noted(*size: int, device: Any = None, **options: Any) -> Tensor:
        places.append(device)
        return empty(*size, device=device, **options)

    monkeypatch.setattr(torch, "empty", noted)
    load_torch(path)
    assert places[:2] == ["meta", "meta"]  # before torch takes its own


def test_torch_is_asked_for_weights_only(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save([torch.ones(3)], path)
    asked = []
    monkeypatch.setattr(torch, "load", lambda file, **options: asked.append(options))
    load_torch(path)
    assert asked == [{"map_location": "cpu", "weights_only": True}]


def test_torch_is_not_asked_before_a_pickle_is_known_to_be_harmless(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(Call(os.system, "true"), path)
    monkeypatch.setattr(torch, "load", pytest.fail)
    with pytest.raises(UnsafeFileError, match="wants to run code"):
        load_torch(path)


# What may be asked for.


class Versions:
    """A class that a file may be allowed to name."""

    def __init__(self, major: int) -> None:
        self.major = major


class Stateful(Versions):
    def __setstate__(self, state: tuple[int, int]) -> None:
        self.minor = state[1]


def test_allowed_class_may_be_named(path: Path) -> None:
    save({"args": argparse.Namespace(lr=0.1, nested=[argparse.Namespace(a=None)])}, path)
    assert load_torch(path, allow=[argparse.Namespace]) == {
        "args": argparse.Namespace(lr=0.1, nested=[argparse.Namespace(a=None)])
    }


def test_allowed_class_may_go_by_another_name(path: Path) -> None:
    write_archive(path, named("old.place.Thing") + number(7) + b"\x85R")
    found = load_torch(path, allow=[(Versions, "old.place.Thing")])
    assert isinstance(found, Versions)
    assert found.major == 7


def test_own_name_is_not_allowed_beside_another(path: Path) -> None:
    write_archive(path, named(f"{__name__}.Versions") + number(7) + b"\x85R")
    with pytest.raises(UnsafeFileError, match=r"asks for `.*Versions`"):
        load_torch(path, allow=[(Versions, "old.place.Thing")])


def test_state_of_an_allowed_object_goes_through_its_own_method(path: Path) -> None:
    write_archive(path, named("Thing.Thing") + b")\x81" + number(1) + number(2) + b"\x86b")
    found: Any = load_torch(path, allow=[(Stateful, "Thing.Thing")])
    assert vars(found) == {"minor": 2}


def test_what_torch_was_told_to_trust_is_not_trusted_here(path: Path) -> None:
    save([Call(os.path.basename, "a/b")], path)
    with torch.serialization.safe_globals([os.path.basename]):
        assert torch.load(path, weights_only=True) == ["b"]
        with pytest.raises(UnsafeFileError, match=r"asks for `posixpath\.basename`"):
            load_torch(path)


# What would run code.


def planted(marker: Path) -> dict[str, object]:
    touch = Call(os.system, f"touch {marker}")
    write = Call(eval, f"open({str(marker)!r}, 'w').close()")
    return {
        "system": touch,
        "eval": write,
        "exec": Call(exec, f"open({str(marker)!r}, 'w').close()"),
        "nested": {"model": {"a": torch.ones(2)}, "deep": [({"b": touch},)]},
        "last": [torch.ones(2), write],
        "namespace": argparse.Namespace(hook=touch),
        "state": Call(argparse.Namespace, touch),
    }


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("container", ["zip", "legacy", "pickle"])
@pytest.mark.parametrize("kind", list(planted(Path())))
def test_planted_code_is_refused_and_not_run(
    path: Path, tmp_path: Path, kind: str, container: str, protocol: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    marker = tmp_path / "ran"
    contents = planted(marker)[kind]
    if container == "pickle":
        path.write_bytes(pickle.dumps(contents, protocol))
    else:
        torch.save(
            contents,
            path,
            pickle_protocol=protocol,
            _use_new_zipfile_serialization=container == "zip",
        )
    expected = UnsafeFileError if protocol == 2 else DamagedFileError
    with pytest.raises(expected, match=r"data\.pt` (wants to run code .* not opened|is no readable)"):
        load_torch(path, allow=[argparse.Namespace], legacy=True)
    assert not marker.exists()


@pytest.mark.parametrize("kind", ["system", "eval", "exec", "state"])
def test_planted_code_would_run_in_an_unpickler(tmp_path: Path, kind: str) -> None:
    data = pickle.dumps(planted(tmp_path / "ran")[kind])
    try:
        pickle.loads(data)
    except TypeError:
        assert kind == "state"
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "name",
    [
        "os.system",
        "posix.system",
        "nt.system",
        "builtins.eval",
        "__builtin__.eval",
        "builtins.getattr",
        "subprocess.Popen",
        "copyreg._reconstructor",
        "torch.load",
        "torch.hub.load",
        "torch.nn.modules.linear.Linear",
        "torch._tensor._rebuild_from_type_v2",
        "torch.storage._load_from_bytes",
        "numpy._core.multiarray.scalar",
    ],
)
def test_name_alone_is_refused(path: Path, name: str) -> None:
    write_archive(path, named(name) + b"0N")
    with pytest.raises(UnsafeFileError, match=rf"asks for `{name}`\) and was not opened\. Use a file of"):
        load_torch(path)


def test_objects_that_are_no_functions_are_not_called(path: Path) -> None:
    write_archive(path, text("os.system") + text("true") + b"\x85R")
    with pytest.raises(DamagedFileError, match="no readable torch checkpoint"):
        load_torch(path, allow=[argparse.Namespace])


def test_attributes_of_a_tensor_are_not_set(path: Path) -> None:
    write_archive(path, tensor(1, [1], [1]) + b"}" + text("numel") + b"Nsb", {"0": bytes(4)})
    with pytest.raises(DamagedFileError, match="sets attributes of an unknown object"):
        load_torch(path)


# What would take more memory or time than a file of its size may.


def doubled(name: str) -> bytes:
    encode = named("_codecs.encode") + b"q\0" + text(name) + b"q\1" + text("ab" * 100)
    return encode + b"q\2" + b"h\0h\2h\1\x86Rq\2" * 40


def copied(function: str, value: bytes) -> bytes:
    """As many copies of a long value as fit."""
    return named(function) + b"q\0" + value + b"q\1" + b"h\0h\1\x85R0" * 50_000


HOSTILE = {
    "bytearray": named("builtins.bytearray") + number(10**11) + b"\x85R",
    "tensor": named("torch.FloatTensor") + number(10**11) + b"\x85R",
    "Tensor": named("torch.Tensor") + number(10**11) + b"\x85R",
    "storage": named("torch.storage.UntypedStorage") + number(10**11) + b"\x85R",
    "typed storage": named("torch.FloatStorage") + number(10**11) + b"\x85R",
    "hexadecimal": doubled("hex"),
    "utf-32": doubled("utf-32"),
    "punycode": doubled("punycode"),
    "bytes": named("_codecs.encode") + b"q\0" + text("a" * 500_000) + b"q\1" + text("latin1") + b"q\2"
    b"h\0h\1h\2\x86R" * 50_000,
    "sizes": copied("torch.Size", b"(" + b"K\1" * 200_000 + b"t"),
    "counters": copied("collections.Counter", b"}(" + b"".join(number(n) + b"N" for n in range(9999)) + b"u"),
    "lists of lists": b"]q\0" + b"]q\1(" + b"h\0" * 50_000 + b"e" + b"]q\2(" + b"h\1" * 50_000 + b"e",
    "deep tuple": b"N" + b"\x85" * 200_000,
    "deep list": b"]" * 200_000 + b"a" * 199_999,
    "deep key": b"}N" + b"\x85" * 200_000 + b"Ns",
    "wide key": b"}N" + b"".join(b"q\0(" + b"h\0" * 1000 + b"t" for _ in range(99)) + b"Ns",
    "keys that collide": b"}(" + b"".join(number(k * (2**61 - 1)) + b"N" for k in range(1, 80_000)) + b"u",
    "long number": b"\x8b" + (10**6).to_bytes(4, "little") + b"\xff" * 10**6,
    "long digits": b"L" + b"9" * 10**6 + b"L\n",
    "memo": b"Nr\xff\xff\xff\xff",
    "string of 4 GB": b"X\xff\xff\xff\xff" + b"a" * 99,
    "storage of 4 TB": tensor(10**12, [1], [1]),
    "storage of 2^64 bytes": tensor(2**62, [1], [1]),
    "storage of fewer bytes": tensor(2, [1], [1]),
    "storage of -1 numbers": tensor(-1, [1], [1]),
}


@pytest.mark.parametrize("program", HOSTILE.values(), ids=HOSTILE)
def test_hostile_pickle_takes_neither_long_nor_much(path: Path, program: bytes) -> None:
    write_archive(path, program, {"0": bytes(16)})
    with within_bounds():
        try:
            found = load_torch(path)
        except ReadError:
            return
        del found


@pytest.mark.parametrize(
    "kind", [kind for kind in HOSTILE if kind not in ("deep tuple", "deep list", "lists of lists", "memo")]
)
def test_hostile_pickle_is_refused(path: Path, kind: str) -> None:
    write_archive(path, HOSTILE[kind], {"0": bytes(16)})
    with pytest.raises(ReadError, match=r"data\.pt`"):
        load_torch(path)


@pytest.mark.parametrize("legacy", [False, True])
def test_pickle_of_more_than_a_megabyte_is_refused(path: Path, legacy: bool) -> None:
    program = b"N" * (1 << 20)
    if legacy:
        path.write_bytes(b"\x80\x02" + program * 9 + b".")
    else:
        write_archive(path, program)
    with within_bounds(), pytest.raises(DamagedFileError, match=r"has (more than )?1048\d+ bytes"):
        load_torch(path, legacy=legacy)


@pytest.mark.parametrize("bomb", ["data.pkl", "data/0", "byteorder"])
def test_compressed_record_is_refused_before_it_is_unpacked(path: Path, bomb: str) -> None:
    records = {
        "data.pkl": b"\x80\x02" + tensor(4, [4], [1]) + b".",
        "data/0": bytes(16),
        "byteorder": b"little",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in records.items():
            kind = zipfile.ZIP_DEFLATED if name == bomb else zipfile.ZIP_STORED
            archive.writestr(f"archive/{name}", bytes(10**8) if name == bomb else data, kind)
    with (
        within_bounds(),
        pytest.raises(UnsafeFileError, match=rf"`archive/{bomb}` is compressed, which torch"),
    ):
        load_torch(path)


def test_storage_that_is_compressed_to_less_is_refused(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", b"\x80\x02" + tensor(10**7, [1], [1]) + b".", zipfile.ZIP_STORED)
        archive.writestr("a/data/0", bytes(4 * 10**7))
    with within_bounds(), pytest.raises(DamagedFileError, match="too short for a tensor of 40000000 bytes"):
        load_torch(path)


def test_archive_of_very_many_records_is_refused_before_it_is_listed(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02N.")
        for index in range(20_000):
            archive.writestr(f"archive/{index}", b"")
    monkeypatch.setattr(zipfile, "ZipFile", pytest.fail)
    with pytest.raises(DamagedFileError, match=r"directory of records has \d{7} bytes"):
        load_torch(path)


@FORMATS
@pytest.mark.parametrize("shape", [(2,), (10**6, 10**6)])
def test_expanded_tensor_is_refused(path: Path, shape: tuple[int, ...], is_zip: bool) -> None:
    save({"data": torch.zeros(1).expand(shape)}, path, is_zip=is_zip)
    with (
        within_bounds(),
        pytest.raises(UnsafeFileError, match=r"shape \(.*larger than its bytes.*contiguous"),
    ):
        load_torch(path, legacy=True)


@pytest.mark.parametrize(
    ("size", "stride", "offset"),
    [
        ([5], [1], 0),
        ([4], [1], 1),
        ([2], [4], 0),
        ([2, 2], [2, 2], 0),
        ([1], [1], 4),
        ([], [], 4),
        ([1], [1], 2**62),
        ([2], [2**62], 0),
        ([2**31, 2**31], [0, 0], 0),
    ],
)
def test_tensor_beyond_its_storage_is_refused(
    path: Path, size: list[int], stride: list[int], offset: int
) -> None:
    write_archive(path, tensor(4, size, stride, offset=offset), {"0": bytes(16)})
    with pytest.raises(UnsafeFileError, match="larger than its bytes"):
        load_torch(path)


@pytest.mark.parametrize(
    ("size", "stride", "offset"),
    [
        ([-1], [1], 0),
        ([1], [-1], 0),
        ([1], [1], -1),
        ([2**70], [0], 0),
        ([1], [], 0),
        ([1] * 300, [1] * 300, 0),
    ],
)
def test_tensor_of_impossible_shape_is_refused(
    path: Path, size: list[int], stride: list[int], offset: int
) -> None:
    write_archive(path, tensor(4, size, stride, offset=offset), {"0": bytes(16)})
    with pytest.raises(ReadError, match=r"data\.pt`"):
        load_torch(path)


def test_tensor_whose_rows_overlap_is_read(path: Path) -> None:
    save(torch.arange(6.0).as_strided((2, 3), (1, 1)), path)
    found: Any = load_torch(path)
    assert found.tolist() == [[0, 1, 2], [1, 2, 3]]


def unusual_tensors() -> dict[str, tuple[Tensor, str]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch means to drop some of them
        quantized = torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)
        named_rows = torch.ones(2)
        named_rows.note = "attribute"  # type: ignore[attr-defined]
    return {
        "sparse": (torch.eye(3).to_sparse(), "_rebuild_sparse_tensor"),
        "quantized": (quantized, "_rebuild_qtensor"),
        "meta": (torch.ones(3, device="meta"), "_rebuild_meta_tensor_no_storage"),
        "complex": (torch.ones(2, dtype=torch.complex64), "ComplexFloatStorage"),
        "unsigned": (torch.ones(2, dtype=torch.uint16), "_rebuild_tensor_v3"),
        "attributes": (named_rows, "_rebuild_from_type_v2"),
    }


@pytest.mark.parametrize("kind", list(unusual_tensors()))
def test_unusual_tensor_is_refused_with_a_cure(path: Path, kind: str) -> None:
    unusual, name = unusual_tensors()[kind]
    save({"data": unusual}, path)
    with pytest.raises(UnsafeFileError, match=rf"more than dense tensors.*{name}.* not opened.*to_dense"):
        load_torch(path)


def test_lazily_negated_tensor_is_refused(path: Path) -> None:
    save(torch.ones(2, dtype=torch.complex64).conj().imag, path)
    with pytest.raises(ReadError, match=r"data\.pt`"):
        load_torch(path)


# What is damaged, or something else.


@FORMATS
def test_file_cut_short_anywhere_is_named_with_a_cure(path: Path, is_zip: bool) -> None:
    save({"a": torch.arange(9.0), "b": [1, "text"]}, path, is_zip=is_zip)
    whole = path.read_bytes()
    for length in {*range(0, len(whole), 7), len(whole) - 1}:
        path.write_bytes(whole[:length])
        with pytest.raises(DamagedFileError, match=r"data\.pt` is no readable .* get it again"):
            load_torch(path, legacy=True)


def test_changed_number_is_found(path: Path) -> None:
    save(torch.arange(100.0), path)
    data = bytearray(path.read_bytes())
    at = data.index(torch.arange(100.0).numpy().tobytes())
    data[at + 50] ^= 1
    path.write_bytes(data)
    with pytest.raises(DamagedFileError, match="Bad CRC-32"):
        load_torch(path)


def tar_of(contents: bytes) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        entry = tarfile.TarInfo("pickle")
        entry.size = len(contents)
        archive.addfile(entry, io.BytesIO(contents))
    return stream.getvalue()


OTHER_FILES = {
    "empty": b"",
    "zeros": bytes(200),
    "page": b"<!DOCTYPE html><html>Quota exceeded</html>",
    "tar": tar_of(pickle.dumps([1])),
    "number": b"\x80\x02K\1.",
    "version": b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02K\1.",
    "safetensors": (2).to_bytes(8, "little") + b"{}",
    "end of an archive": b"PK\5\6" + bytes(18),
    "end of a large archive": b"PK\6\6" + bytes(52) + b"PK\6\7" + bytes(16) + b"PK\5\6" + bytes(18),
}


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("data", OTHER_FILES.values(), ids=OTHER_FILES)
def test_file_of_another_kind_is_named_with_a_cure(path: Path, data: bytes, legacy: bool) -> None:
    path.write_bytes(data)
    with pytest.raises(DamagedFileError, match=r"is no readable .* a web page in place of the download"):
        load_torch(path, legacy=legacy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda names: names.pop("data.pkl"), "holds 0 records `data.pkl`"),
        (lambda names: names.pop("data/0"), "no item named 'archive/data/0'"),
        (lambda names: names.update({"data/0": bytes(17)}), "has 17 bytes in place of 16"),
        (lambda names: names.update({"byteorder": b"big"}), "not little-endian"),
        (lambda names: names.update({"byteorder": b"little" * 99}), "has 594 bytes"),
        (lambda names: names.update({"constants.pkl": b""}), "TorchScript"),
    ],
)
def test_archive_with_other_records_is_explained(
    path: Path, change: Callable[[dict[str, bytes]], object], message: str
) -> None:
    names = {
        "data.pkl": b"\x80\x02" + tensor(4, [4], [1]) + b".",
        "byteorder": b"little",
        "data/0": bytes(16),
    }
    change(names)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in names.items():
            archive.writestr(f"archive/{name}", data)
    with pytest.raises(DamagedFileError, match=message):
        load_torch(path)


def test_two_pickles_in_an_archive_are_refused(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for root in ("a", "b"):
            archive.writestr(f"{root}/data.pkl", b"\x80\x02N.")
    with pytest.raises(DamagedFileError, match="holds 2 records `data.pkl`"):
        load_torch(path)


def test_an_archive_behind_a_planted_pickle_is_refused(path: Path) -> None:
    """Torch goes by the first bytes of a file, and would take this one for a legacy one."""
    save(Call(os.system, "true"), path, is_zip=False)
    planted_pickle = path.read_bytes()
    write_archive(path, b"K\7")
    path.write_bytes(planted_pickle + path.read_bytes())
    with pytest.raises(UnsafeFileError, match="wants to run code"):
        load_torch(path, legacy=True)
    with pytest.raises(DamagedFileError, match="it is no zip archive"):
        load_torch(path)


def test_legacy_file_is_refused_unless_asked_for(path: Path) -> None:
    save([1], path, is_zip=False)
    with pytest.raises(DamagedFileError, match=r"no zip archive, as torch has written since 1\.6"):
        load_torch(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.replace(b"\x88X", b"\x89X", 1), "not little-endian"),
        (lambda data: data.replace((4).to_bytes(8, "little"), (5).to_bytes(8, "little")), "another size"),
        (lambda data: data.replace(b"\xe9\x03", b"\xe8\x03", 1), "does not begin as"),
        (lambda data: data[: data.rindex(b"\x80\x02")] + b"\x80\x02].", "other tensors follow"),
    ],
)
def test_damaged_legacy_file_is_explained(path: Path, change: Callable[[bytes], bytes], message: str) -> None:
    save(torch.ones(4), path, is_zip=False)
    data = path.read_bytes()
    path.write_bytes(change(data))
    assert path.read_bytes() != data
    with pytest.raises(DamagedFileError, match=message):
        load_torch(path, legacy=True)


def test_advice_to_load_unsafely_is_not_passed_on(path: Path) -> None:
    path.write_bytes(b"no pickle")
    with pytest.raises(DamagedFileError) as caught:
        load_torch(path, legacy=True)
    assert "weights_only" not in str(caught.value)


def test_missing_file_and_folder_are_plain_file_errors(path: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=path.name):
        load_torch(path)
    with pytest.raises(IsADirectoryError, match=tmp_path.name):
        load_torch(tmp_path)


WORDS = [
    b")",
    b"]",
    b"}",
    b"(",
    b"t",
    b"\x85",
    b"\x86",
    b"\x87",
    b"N",
    b"\x88",
    b"K\5",
    b"a",
    b"e",
    b"s",
    b"u",
]
WORDS += [
    b"q\0",
    b"h\0",
    b"q\1",
    b"h\1",
    b"Q",
    b"R",
    b"\x81",
    b"b",
    b"0",
    b"2",
    b"1",
    b"\x94",
    b"\x93",
    b"J\0\0\0\0",
]
WORDS += [text("storage"), text("0"), text("cpu"), text("latin1"), number(2**70), tensor(4, [2], [1])]
WORDS += [named("torch.FloatStorage"), named("torch._utils._rebuild_tensor_v2"), named("_codecs.encode")]
WORDS += [
    named("collections.OrderedDict"),
    named("argparse.Namespace"),
    named("torch._utils._rebuild_parameter"),
]


@settings(max_examples=300, deadline=None)
@example(words=[b")", b"2"])
@given(words=st.lists(st.sampled_from(WORDS) | st.binary(min_size=1, max_size=2), max_size=30))
def test_any_pickle_is_read_or_refused(folder: Path, words: list[bytes]) -> None:
    path = write_archive(folder / "any.pt", b"".join(words), {"0": bytes(16)})
    with suppress(ReadError):
        load_torch(path, allow=[argparse.Namespace])
