#!/usr/bin/env python3
"""Packs a folder: packaging/archive.py FOLDER ARCHIVE, where ARCHIVE ends in .tar.gz or .zip.

The same content gives the same bytes, on any system: entries are sorted, belong to root, and have the time of SOURCE_DATE_EPOCH.
"""

import gzip
import os
import sys
import tarfile
import time
import zipfile
from pathlib import Path

PROGRAMS = ("palisade", "palisade.exe")


def mode(path):
    return 0o755 if path.is_dir() or path.name in PROGRAMS else 0o644


def pack_tar(folder, files, archive, epoch):
    with open(archive, "wb") as raw, gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=epoch) as packed:
        with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for path in files:
                entry = tarfile.TarInfo(path.relative_to(folder.parent).as_posix())
                entry.mode, entry.mtime, entry.uname, entry.gname = mode(path), epoch, "root", "root"
                if path.is_dir():
                    entry.type = tarfile.DIRTYPE
                    tar.addfile(entry)
                else:
                    entry.size = path.stat().st_size
                    with open(path, "rb") as content:
                        tar.addfile(entry, content)


def pack_zip(folder, files, archive, epoch):
    # A zip file has no time before 1980.
    moment = time.gmtime(max(epoch, 315532800))[:6]
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for path in files:
            if not path.is_dir():
                entry = zipfile.ZipInfo(path.relative_to(folder.parent).as_posix(), moment)
                entry.external_attr, entry.compress_type = mode(path) << 16, zipfile.ZIP_DEFLATED
                packed.writestr(entry, path.read_bytes())


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    folder, archive = Path(sys.argv[1]).resolve(), sys.argv[2]
    epoch = int(os.environ.get("SOURCE_DATE_EPOCH", "0"))
    files = [folder, *sorted(folder.rglob("*"))]
    (pack_zip if archive.endswith(".zip") else pack_tar)(folder, files, archive, epoch)


if __name__ == "__main__":
    main()
