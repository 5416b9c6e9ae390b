"""Files of Keras, Chainer, DeZero and flax, written here by their layouts; real ones were read when this was made."""

import errno
import io
import os
import pickle
import struct
import sys
import tempfile
import zipfile

import h5py
import ml_dtypes
import numpy as np
import pytest

from needle import npz
from needle.interop import foreign

pytestmark = pytest.mark.on_cpu


def in_file(read, content, ending=""):
    """What a reader makes of a file with this content."""
    with tempfile.NamedTemporaryFile(suffix=ending) as file:
        file.write(content)
        file.flush()
        return read(file.name)


def assert_equal(values, expected):
    assert [*values] == [*expected]
    for name, value in expected.items():
        if isinstance(value, np.ndarray):
            assert values[name].dtype == value.dtype
            assert values[name].flags.writeable
            np.testing.assert_array_equal(values[name], value)
        else:
            assert values[name] == value
            assert type(values[name]) is type(value)


def assert_refused_or_read(read, content):
    """A changed file is refused with ValueError, or read."""
    try:
        in_file(read, content)
    except ValueError as error:
        if ": path must be a whole " not in str(error):
            raise


def changed(content, rng, count):
    """The content with one byte changed, or cut, at random places."""
    for _ in range(count):
        place = int(rng.integers(len(content)))
        yield content[:place] + bytes([int(rng.integers(256))]) + content[place + 1 :]
        yield content[:place]


# ---- flax ------------------------------------------------------------------------------------------------------------


def packed(value):
    """A value in MessagePack, as flax 0.12.8 writes it."""
    if value is None or isinstance(value, bool):
        return {None: b"\xc0", False: b"\xc2", True: b"\xc3"}[value]
    if isinstance(value, np.generic):
        return extension(3, array_content(np.asarray(value)))
    if isinstance(value, int):
        if -32 <= value < 128:
            return struct.pack("b" if value < 0 else "B", value)
        form = next(form for form, top in zip("BHIQ", (8, 16, 32, 64), strict=True) if value < 2**top)
        return (
            struct.pack(f">B{form}", 0xCC + "BHIQ".index(form), value) if value > 0 else struct.pack(">Bq", 0xD3, value)
        )
    if isinstance(value, float):
        return struct.pack(">Bd", 0xCB, value)
    if isinstance(value, complex):
        return extension(2, b"\x92" + packed(value.real) + packed(value.imag))
    if isinstance(value, str):
        text = value.encode()
        return (bytes([0xA0 + len(text)]) if len(text) < 32 else bytes([0xD9, len(text)])) + text
    if isinstance(value, bytes):
        return sized(0xC4, value)
    if isinstance(value, dict):
        start = bytes([0x80 + len(value)]) if len(value) < 16 else struct.pack(">BH", 0xDE, len(value))
        return start + b"".join(packed(key) + packed(entry) for key, entry in value.items())
    if isinstance(value, tuple):
        return bytes([0x90 + len(value)]) + b"".join(map(packed, value))
    return extension(1, array_content(value))


def sized(code, content, *between):
    """Bytes behind their length, of 8, 16 or 32 bits."""
    i = (len(content) >= 2**8) + (len(content) >= 2**16)
    return struct.pack(f">B{'BHI'[i]}", code + i, len(content)) + bytes(between) + content


def extension(kind, content):
    if len(content) in (1, 2, 4, 8, 16):
        return bytes([0xD4 + len(content).bit_length() - 1, kind]) + content
    return sized(0xC7, content, kind)


def array_content(array):
    return b"\x93" + packed(array.shape) + packed(array.dtype.name) + packed(array.tobytes())


def chunked(array, size):
    parts = [array.reshape(-1)[i : i + size] for i in range(0, array.size, size)]
    shape, chunks = ({str(i): entry for i, entry in enumerate(entries)} for entries in (array.shape, parts))
    return {"__msgpack_chunked_array__": True, "shape": shape, "chunks": chunks}


RNG = np.random.default_rng(0)
KERNEL = RNG.standard_normal((3, 3, 2, 4)).astype("f4")
HALF = np.arange(6, dtype="f4").reshape(2, 3) / 8
FLAX = {
    "params": {
        "Conv_0": {"kernel": KERNEL, "bias": HALF.astype(ml_dtypes.bfloat16)},
        "many": {"0": HALF, "1": HALF > 0},
    },
    "step": 3,
    "count": np.int32(7),
    "large": {"table": chunked(np.arange(70, dtype="i2").reshape(7, 10), 16)},
    "other": {"scale": np.array(1.5), "none": np.zeros((0, 3), "f2"), "z": np.array([1 + 2j]), "c": 3 + 4j},
    "plain": {"rate": 0.5, "low": -5, "lowest": -(2**40), "high": 2**63, "text": "ü" * 20, "off": False, "empty": None},
    "raw": b"\0" * 300,
    "state": {},
    "long": {str(i): i * 100 for i in range(20)},
}


def test_flax():
    assert_equal(
        in_file(foreign.read_flax, packed(FLAX)),
        {
            "params/Conv_0/kernel": KERNEL, "params/Conv_0/bias": HALF, "params/many/0": HALF,
            "params/many/1": HALF > 0, "step": 3, "count": np.array(7, "i4"),
            "large/table": np.arange(70, dtype="i2").reshape(7, 10), "other/scale": np.array(1.5),
            "other/none": np.zeros((0, 3), "f2"), "other/z": np.array([1 + 2j]), "other/c": 3 + 4j, "plain/rate": 0.5,
            "plain/low": -5, "plain/lowest": -(2**40), "plain/high": 2**63, "plain/text": "ü" * 20, "plain/off": False,
            "plain/empty": None, "raw": b"\0" * 300, **{f"long/{i}": i * 100 for i in range(20)},
        },
    )  # fmt: skip


def test_flax_keeps_lists_as_flax_does():
    """`msgpack_serialize` of a list that did not become a dict."""
    assert in_file(foreign.read_flax, b"\x81" + packed("a") + b"\xdc\0\2\1\2") == {"a/0": 1, "a/1": 2}


# The codes of MessagePack's specification, with the least that they hold, in hexadecimal digits.
CODES = {
    "00": 0, "7f": 127, "e0": -32, "ff": -1, "c0": None, "c2": False, "c3": True,
    "ca 3fc00000": 1.5, "cb 3ff8000000000000": 1.5, "cc 80": 128, "cd 0100": 256, "ce 00010000": 2**16,
    "cf 0000000100000000": 2**32, "d0 80": -128, "d1 8000": -(2**15), "d2 80000000": -(2**31),
    "d3 8000000000000000": -(2**63), "a0": "", "bf" + "62" * 31: "b" * 31, "d9 01 62": "b", "da 0001 62": "b",
    "db 00000001 62": "b", "c4 01 62": b"b", "c5 0001 62": b"b", "c6 00000001 62": b"b", "90": {}, "91 05": {"0": 5},
    "9f" + "00" * 15: {str(i): 0 for i in range(15)}, "dc 0001 05": {"0": 5}, "dd 00000001 05": {"0": 5}, "80": {},
    "81 a162 05": {"b": 5}, "de 0001 a162 05": {"b": 5}, "df 00000001 a162 05": {"b": 5},
}  # fmt: skip


def test_every_code_of_flax():
    for code, value in CODES.items():
        expected = {f"a/{key}": entry for key, entry in value.items()} if isinstance(value, dict) else {"a": value}
        assert_equal(in_file(foreign.read_flax, b"\x81\xa1a" + bytes.fromhex(code)), expected)


def test_flax_reads_lists_of_nnx():
    """`msgpack_serialize(nnx.to_pure_dict(…))`, which has numbers for keys."""
    assert in_file(foreign.read_flax, b"\x81" + packed("layers") + b"\x82\0\5\1\7") == {"layers/0": 5, "layers/1": 7}


def test_broken_flax_files_are_refused():
    whole = packed(FLAX)
    for content in changed(whole, np.random.default_rng(1), 60):
        assert_refused_or_read(foreign.read_flax, content)


def flax(content):
    return lambda: in_file(foreign.read_flax, content)


def entry(content):
    return flax(b"\x81\xa1x" + content)


def raw_array(shape, name, content):
    return entry(extension(1, b"\x93" + shape + packed(name) + packed(content)))


def chunks(**changed):
    return flax(packed({"x": chunked(HALF, 4) | changed}))


TOO_MANY = "holds more than 131072 values, or more than 100 levels of them"
FLAX_ERRORS = [
    (flax(b""), "is cut: 1 bytes are announced where 0 are left"),
    (flax(packed(FLAX) + b"\0"), "has 1 bytes after its end"),
    (flax(b"\1"), "holds a int, not a dict"),
    (entry(b"\xc6\xff\xff\xff\xff"), "is cut: 4294967295 bytes are announced where 0 are left"),
    (entry(b"\xc9\xff\xff\xff\xff\1"), "is cut: 4294967295 bytes are announced where 0 are left"),
    (entry(b"\xdd\xff\xff\xff\xff" + b"\xc0" * 2**18), TOO_MANY),
    (entry(b"\x91" * 1000), TOO_MANY),
    (entry(b"\xd4\1\x93" * 1000), TOO_MANY),
    (entry(b"\xc9\0\0\0\x0f\2" * 1000), TOO_MANY),
    (entry(b"\xc1"), "is no MessagePack: it has a code 0xc1"),
    (entry(b"\xa1\xff"), None),
    (flax(b"\x82\xa1x\1\xa1x\1"), "has a dict with a key that comes twice or is no text: 'x'"),
    (flax(b"\x81\xc3\1"), "has a dict with a key that comes twice or is no text: True"),
    (flax(b"\x82\1\1\xa11\1"), "has a dict with a key that comes twice or is no text: '1'"),
    (flax(packed({"a": {"b": 1}, "a/b": 2})), "holds two values of the name 'a/b'"),
    (entry(extension(5, b"abc")), "holds a value of type 5, which is not flax's"),
    (entry(extension(2, b"\x92\1\2")), "holds a complex number that is none"),
    (entry(extension(2, b"\x92" + packed(1.0) * 2 + b"\0")), "holds a value that does not fill its bytes"),
    (entry(extension(1, b"\x92\1\2\3\4")), "holds an array without shape, dtype and values"),
    (raw_array(b"\x91\xff", "float32", b""), "holds an array without shape, dtype and values"),
    (raw_array(b"\x91\2", "float32", b"1234"), "holds an array of 4 bytes, which do not fit float32 of shape (2,)"),
    (raw_array(b"\x92\0\xcf\x40" + b"\0" * 7, "float32", b""),
     "holds an array of shape (0, 4611686018427387904), which NumPy cannot hold"),
    (raw_array(b"\x91\1", "float8_e4m3fn", b"1"),
     "holds an array of type float8_e4m3fn, but only bools and numbers of at most 64 bits are read"),
    (raw_array(b"\x91\1", "bool", b"2"), "holds 'an array' with bools other than 0 and 1"),
    (chunks(shape=3), "holds an array in chunks without shape or chunks"),
    (chunks(chunks={"1": HALF.reshape(-1)}), "holds an array in chunks that are not in order"),
    (chunks(chunks={"0": HALF}), "holds an array in chunks that are not alike"),
    (chunks(shape={"0": 7}), "holds an array of 6 values in chunks, which do not fit [7]"),
]  # fmt: skip

# ---- Chainer and DeZero ----------------------------------------------------------------------------------------------


def archived(members):
    """A .npz with these members: arrays, or bytes as they are."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, value in members.items():
            if not isinstance(value, bytes):
                inner = io.BytesIO()
                np.save(inner, value)
                value = inner.getvalue()
            archive.writestr(f"{name}.npy", value)
    return buffer.getvalue()


def pickled(value, protocol):
    """A .npy of an object array of shape () as NumPy with this protocol writes it, by its name before NumPy 2."""
    header = b"{'descr': '|O', 'fortran_order': False, 'shape': (), }"
    header = header.ljust(117) + b"\n"
    content = pickle.dumps(np.array(value, object), protocol)
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header + content


CHAINER = {"conv/W": KERNEL, "bn/N": np.array(3), "bn/avg_var": HALF.astype(">f4"), "seq/0/b": HALF}
CHAINER["large"] = np.arange(300.0)
NAMES = b"cnumpy.core.multiarray\n_reconstruct\n", b"cnumpy._core.multiarray\n_reconstruct\n"


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_chainer(protocol):
    none = pickled(None, protocol)
    values = in_file(foreign.read_npz, archived({**CHAINER, "lazy/W": none}))
    assert_equal(values, {**CHAINER, "bn/avg_var": HALF, "lazy/W": None})
    older = none.replace(NAMES[1], NAMES[0])  # before NumPy 2
    assert older != none or protocol > 3
    assert in_file(foreign.read_npz, archived({"lazy/W": older})) == {"lazy/W": None}


def test_errors_of_the_disk_are_the_systems():
    class Failing(io.BytesIO):
        def read(self, size=-1):
            if self.tell():
                return super().read(size)
            raise OSError(errno.EIO, "disk")

    with pytest.raises(OSError, match="disk"):
        npz.read_npz(Failing(archived(CHAINER)))


def test_a_model_in_a_snapshot():
    """A trainer keeps text, too, which is no array of numbers."""
    members = {
        "updater/model:main/conv/W": KERNEL,
        "updater/model:main/lazy": pickled(None, 4),
        "log": np.array("text"),
    }
    content = archived(members)
    assert_equal(
        in_file(lambda path: foreign.read_npz(path, "updater/model:main/"), content), {"conv/W": KERNEL, "lazy": None}
    )


class Command:
    """An object whose unpickling runs a function."""

    def __reduce__(self):
        return (os.abort, ())


def refused_npz(members, **options):
    return lambda: in_file(lambda path: foreign.read_npz(path, **options), archived(members))


OBJECTS = "holds 'a.npy' of type '|O', but only bools and numbers of at most 64 bits are read"
NPZ_ERRORS = [
    (refused_npz({"a": pickled(Command(), 4)}), OBJECTS),
    (refused_npz({"a": pickled({"x": None}, 4)}), OBJECTS),
    (refused_npz({"a": pickled("x", 3)}), OBJECTS),
    (refused_npz({"a": pickled(None, 3)[:-20]}), OBJECTS),
    (refused_npz({"a": HALF}, prefix="model/"), "holds no name that begins with 'model/', but a"),
]  # fmt: skip


def test_broken_npz_files_are_refused():
    whole = archived({**CHAINER, "lazy/W": pickled(None, 3)})
    for content in changed(whole, np.random.default_rng(2), 50):
        assert_refused_or_read(foreign.read_npz, content)


# ---- Keras -----------------------------------------------------------------------------------------------------------


def write_layer(group, name, *arrays):
    """The variables of a layer as Keras 3.15 writes them."""
    own = group.require_group("vars")
    own.attrs["name"] = name
    for i, array in enumerate(arrays):
        if array.dtype == ml_dtypes.bfloat16:
            own.create_dataset(str(i), data=array.view("V2"))
            own[str(i)].attrs["dtype"] = "bfloat16"
        else:
            own.create_dataset(str(i), data=array)


def write_model(root):
    write_layer(root, "model", HALF)
    layers = root.create_group("layers")
    for path, name, *arrays in (
        ("conv2d", "stem", KERNEL, HALF[0].astype(ml_dtypes.bfloat16)),
        ("conv2d_2", "second", KERNEL),
        ("conv2d_10", "last", KERNEL.astype(">f8")),
        ("flatten", "flatten"),
    ):
        write_layer(layers.create_group(path), name, *arrays)
    block = layers.create_group("sequential")
    write_layer(block, "block")
    write_layer(block.create_group("layers/dense"), "inside", HALF)
    write_layer(block.create_group("layers/lstm/cell"), "lstm_cell", HALF)
    write_layer(block["layers/lstm"], "rec")
    for path in "first", "second":
        write_layer(root.create_group(f"{path}_list/dense"), "same", HALF)
    write_layer(root.create_group("optimizer"), "adam", np.array(5, "i8"), *[HALF] * 10)


def written(write):
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as root:
        root.create_group("vars")  # the model's own
        write(root)
    return buffer.getvalue()


def zipped(content, compression=zipfile.ZIP_STORED, names=("model.weights.h5",)):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        archive.writestr("config.json", "{}")
        for name in names:
            archive.writestr(name, content)
    return buffer.getvalue()


KERAS = {
    "first_list/dense/vars/0": HALF,
    "stem/0": KERNEL,
    "stem/1": HALF[0],
    "second/0": KERNEL,
    "last/0": KERNEL.astype("f8"),
    "block/inside/0": HALF,
    "block/rec/lstm_cell/0": HALF,
    "optimizer/0": np.array(5),
    **{f"optimizer/{i}": HALF for i in range(1, 11)},
    "second_list/dense/vars/0": HALF,
    "0": HALF,
}


@pytest.mark.parametrize("wrap", [lambda content: content, zipped])
def test_keras(wrap):
    assert_equal(in_file(foreign.read_keras, wrap(written(write_model))), KERAS)


def keras(write):
    """Read a file with a group of variables that `write` fills."""
    return lambda: in_file(foreign.read_keras, written(lambda root: write(root.create_group("layers/a/vars"))))


def external(group):
    with tempfile.NamedTemporaryFile() as file:
        file.write(bytes(100))
        file.flush()
        group.create_dataset("0", (4,), "f4", external=[(file.name, 0, 100)])


def cycle(group):
    group["again"] = group.parent.parent


def shared(group):
    group["0"] = HALF
    group["1"] = group["0"]


def deep(group):
    for _ in range(200):
        group = group.create_group("g")


def misnamed(root):
    for path, name in ("a", "same"), ("b", "same"), ("c", "layers/a/vars"):
        write_layer(root.create_group(f"layers/{path}"), name, HALF)


def named_type(group):
    group["0"] = np.dtype("f4")


def unwritten(group):
    group.create_dataset("0", (10**12,), "f4")


def overlapping():
    """A file with ten arrays in one place: nine were not written, and their addresses are changed to the first's."""

    def write(root):
        group = root.create_group("layers/a/vars")
        group["0"] = np.ones(1000)
        for i in range(1, 10):
            group.create_dataset(str(i), (1000,), "f8")

    content = written(write)
    with h5py.File(io.BytesIO(content)) as root:
        place = root["layers/a/vars/0"].id.get_offset()
    unset, size = b"\xff" * 8, struct.pack("<Q", 8000)
    assert content.count(unset + size) == 9
    return content.replace(unset + size, struct.pack("<Q", place) + size)


def lying_archive():
    """An archive that says of a stored member that it has more bytes than it has."""
    content = zipped(bytes(99))
    place = content.rindex(b"PK\1\2")  # of the last member; its two sizes come 20 bytes later
    return content[: place + 24] + struct.pack("<I", 2**30) + content[place + 28 :]


KERAS_ERRORS = [
    (lambda: in_file(foreign.read_keras, overlapping()), None),
    (lambda: in_file(foreign.read_keras, lying_archive()),
     "promises 1073741824 bytes for model.weights.h5, more than it holds"),
    (keras(lambda g: g.__setitem__("0", h5py.ExternalLink("other.h5", "/x"))),
     "holds 'layers/a/vars/0', a link to another place"),
    (keras(lambda g: g.__setitem__("0", h5py.SoftLink("/layers"))), "holds 'layers/a/vars/0', a link to another place"),
    (keras(cycle), "holds 'layers/a/vars/again', which is something else, too"),
    (keras(shared), "holds 'layers/a/vars/1', which is something else, too"),
    (keras(deep), "holds more than 100 levels of groups"),
    (keras(named_type), "holds 'layers/a/vars/0', which is neither a group nor an array"),
    (keras(external), "holds 'layers/a/vars/0' in pieces, compressed or in other files, which Keras does not do"),
    (keras(lambda g: g.create_dataset("0", (10**12,), "f4", chunks=(1000,))),
     "holds 'layers/a/vars/0' in pieces, compressed or in other files, which Keras does not do"),
    (keras(unwritten), "holds 'layers/a/vars/0' with 0 bytes for float32 of shape (1000000000000,)"),
    (keras(lambda g: g.create_dataset("0", dtype="f4")), "holds 'layers/a/vars/0', which has no shape"),
    (keras(lambda g: g.create_dataset("0", data=["text"])),
     "holds 'layers/a/vars/0' of type object, but only bools and numbers of at most 64 bits are read"),
    (keras(lambda g: g.create_dataset("0", data=np.zeros(1, "V2"))),
     "holds 'layers/a/vars/0' of type |V2, but only bools and numbers of at most 64 bits are read"),
    (lambda: in_file(foreign.read_keras, written(lambda root: root.__delitem__("vars"))),
     "is one of several shards, in which layers have lost their names: save one file in Keras"),
    (lambda: in_file(foreign.read_keras, written(misnamed)), "holds a layer with the path of another as its name"),
    (lambda: in_file(foreign.read_keras, written(lambda root: root.__setitem__("dense/kernel", HALF))),
     "holds 'dense/kernel' outside of the variables of a layer, as Keras 2 wrote them"),
    (lambda: in_file(foreign.read_keras, b"text"), None),
    (lambda: in_file(foreign.read_keras, zipped(b"text", names=())), "holds config.json, not one model.weights.h5"),
    (lambda: in_file(foreign.read_keras, zipped(bytes(10**6), zipfile.ZIP_DEFLATED)),
     "holds model.weights.h5 compressed or encrypted, which Keras does not do"),
    (lambda: in_file(foreign.read_keras, zipped(bytes(99))[:-40]), None),
]  # fmt: skip


def test_broken_keras_files_are_refused():
    whole = zipped(written(write_model))
    for content in changed(whole, np.random.default_rng(3), 20):
        assert_refused_or_read(foreign.read_keras, content)


# ---- messages --------------------------------------------------------------------------------------------------------


def without_h5py():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "h5py", None)
        foreign.read_keras("absent.keras")


OF = {"read_flax": "file by flax.serialization", "read_npz": ".npz file of numbers", "read_keras": "file of Keras 3"}
ERRORS = [
    *((call, ValueError, "read_flax", text) for call, text in FLAX_ERRORS),
    *((call, ValueError, "read_npz", text) for call, text in NPZ_ERRORS),
    *((call, ValueError, "read_keras", text) for call, text in KERAS_ERRORS),
    (without_h5py, ImportError, "",
     "read_keras: needs the package h5py, which `pip install 'needle-dl[hdf5]'` installs, but got: "),
    (lambda: foreign.read_flax("absent"), FileNotFoundError, "",
     "read_flax: path must be a file that can be read, but absent: No such file or directory"),
    (lambda: foreign.read_npz("absent", 1), TypeError, "", "read_npz: prefix must be a str, but got int"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "kind", "op", "text"), ERRORS)
def test_message(call, kind, op, text):
    with pytest.raises(kind) as caught:
        call()
    told = str(caught.value)
    assert type(caught.value) is kind
    if not op:
        assert told.startswith(text)
    else:
        assert told.startswith(f"{op}: path must be a whole {OF[op]}, but {tempfile.gettempdir()}/")
        assert text is None or told.endswith(f" {text}")


def test_arrays_in_one_place_promise_more_than_the_file_has():
    with pytest.raises(ValueError, match=r"promises 80000 bytes, more than the \d{5} that it has"):
        in_file(foreign.read_keras, overlapping())
