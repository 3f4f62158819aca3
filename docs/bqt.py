"""Reads BQT, the container that docs/format.md specifies.  python3 bqt.py FILE lists, python3 bqt.py FILE TENSOR decodes."""
import ctypes, json, math, struct, sys, zlib
f32 = lambda x: ctypes.c_float(x).value  # the nearest 32-bit float: every step of the arithmetic is rounded to one
floats = lambda raw: struct.unpack(f"<{len(raw) // 4}f", raw)

def load(path):
    """Checks the whole file. Returns its index, and a function that fetches the bytes of an extent."""
    raw = open(path, "rb").read()
    magic, version, crc, n_index, n_file = struct.unpack_from("<8sIIQQ", raw.ljust(32, b"\0"))
    if magic != b"\x89BQT\r\n\x1a\n" or version != 1 or n_file != len(raw) or crc != zlib.crc32(raw[16:32 + n_index]):
        sys.exit(f"{path}: not BQT version 1, cut off, or damaged in its header or index")
    index, data = json.loads(raw[32:32 + n_index]), memoryview(raw)[32 + n_index:]
    if index["required"]:
        sys.exit(f"{path}: needs {index['required']}, which this program does not know")
    fetch = lambda extent: bytes(data[extent["offset"]:extent["offset"] + extent["bytes"]])
    extents = [(f"{t['name']}, {p['name']}", p["at"]) for t in index["tensors"] for p in t["parts"]]
    extents += [(f["name"], f["at"]) for f in index.get("files", [])] + [("blob", b) for b in index.get("blobs", [])]
    for name, extent in extents:
        raw, size = fetch(extent), index["chunk_bytes"]
        if extent["crc32"] != "".join(f"{zlib.crc32(raw[i:i + size]):08x}" for i in range(0, len(raw), size)):
            sys.exit(f"{path}: {name} is damaged")
    return index, fetch

def decode(scheme, shape, parts):
    """The numbers of a tensor, row-major, from the bytes of its parts by name."""
    n, (name, _, group) = math.prod(shape), scheme.split("@")[0].partition(":")
    columns = max([1, *shape[-1:]])
    per = {"row": columns, "tensor": max(n, 1)}.get(group) or int(group or (4096 if name == "int8-block" else 64))
    if name in ("f64", "f32", "f16"):
        return [f32(x) for x in struct.unpack(f"<{n}{dict(f64='d', f32='f', f16='e')[name]}", parts["data"])]
    if name == "bf16":  # the upper half of a 32-bit float
        return floats(b"".join(b"\0\0" + parts["data"][2 * i:2 * i + 2] for i in range(n)))
    if name == "int8":
        codes, scales = struct.unpack(f"{n}b", parts["weight"]), floats(parts["SCB"])
        return [f32(f32(q * scales[i // columns]) * f32(7.874016e-3)) for i, q in enumerate(codes)]
    if name[:3] in ("nf4", "fp4") or name == "int8-block":
        codes, book, absmax = parts["codes"], floats(parts["quant_map"]), parts["absmax"]
        if name != "int8-block":
            codes = [code for byte in codes for code in (byte >> 4, byte & 15)][:n]  # the first in the high half
        if name.endswith("-dq"):  # the scales are quantized, too, in blocks of 256
            nested, book8, (offset,) = (floats(parts[p]) for p in ("nested_absmax", "nested_quant_map", "offset"))
            absmax = [f32(f32(book8[code] * nested[i // 256]) + offset) for i, code in enumerate(absmax)]
        scales = absmax if name.endswith("-dq") else floats(absmax)
        return [f32(book[code] * scales[i // per]) for i, code in enumerate(codes)]
    if name[:6] in ("affine", "absmax"):  # codes of b bits, the lowest bit of the first byte first
        b, scales, mins = int(name[6]), floats(parts["scales"]), floats(parts.get("mins", b""))
        codes = [int.from_bytes(parts["codes"][i * b // 8:i * b // 8 + 2], "little") >> i * b % 8 & (1 << b) - 1 for i in range(n)]
        if name.startswith("affine"):
            return [f32(f32(scales[i // per] * q) + mins[i // per]) for i, q in enumerate(codes)]
        return [f32(scales[i // per] * (q - (q >> b - 1 << b))) for i, q in enumerate(codes)]  # two's complement
    sys.exit(f"this reader does not decode {scheme}")

if __name__ == "__main__":
    index, fetch = load(sys.argv[1])
    for tensor in index["tensors"]:
        if len(sys.argv) < 3:
            print(tensor["name"], tensor["scheme"], tensor["shape"])
        elif tensor["name"] == sys.argv[2]:
            for x in decode(tensor["scheme"], tensor["shape"], {p["name"]: fetch(p["at"]) for p in tensor["parts"]}):
                print(repr(x))
