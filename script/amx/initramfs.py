"""Packs a program with the libraries it needs as the first file system of a kernel: initramfs.py INIT PROGRAM OUTPUT, where INIT needs none"""

import pathlib
import re
import subprocess
import sys


def entry(name, mode, data=b"", device=(0, 0)):
    """A member of a cpio archive in the format `newc`."""
    name = name.encode() + b"\0"
    fields = [0, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(name), 0]
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name
    padded = lambda part: part + b"\0" * (-len(part) % 4)
    return padded(head) + padded(data)


def main(init, program, output):
    listed = subprocess.run(["ldd", program], check=True, capture_output=True, text=True).stdout
    # `name => path (address)`, and the loader as a path alone.
    libraries = re.findall(r"(/\S+) \(0x", listed)
    members = [entry("dev", 0o40755), entry("dev/console", 0o20600, device=(5, 1)), entry("tmp", 0o41777)]
    folders = set()
    for library in libraries:
        for folder in reversed(pathlib.Path(library).parents[:-1]):
            if folder not in folders:
                folders.add(folder)
                members.append(entry(str(folder).lstrip("/"), 0o40755))
        members.append(entry(library.lstrip("/"), 0o100755, pathlib.Path(library).read_bytes()))
    members.append(entry("init", 0o100755, pathlib.Path(init).read_bytes()))
    members.append(entry("tests", 0o100755, pathlib.Path(program).read_bytes()))
    members.append(entry("TRAILER!!!", 0))
    pathlib.Path(output).write_bytes(b"".join(members))


main(*sys.argv[1:])
