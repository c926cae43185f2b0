"""Read the metadata of HDF5 files, at which the HDF5 library may crash, before another process does.

Standard input has a path in each line, as JSON; each is answered with an empty line, readable or not.
"""

import contextlib
import json
import resource
import signal
import sys

import h5py

SMALL_BYTES = 2**16  # of an array that is read; of larger ones only the header is


def read_metadata(path: str) -> None:
    """Read the attributes, array headers and small arrays of a file."""

    def read(_: str, item: h5py.Group | h5py.Dataset) -> None:
        for name in item.attrs:
            with contextlib.suppress(Exception):
                item.attrs[name]
        if isinstance(item, h5py.Dataset) and item.nbytes <= SMALL_BYTES:
            with contextlib.suppress(Exception):
                item[()]

    with h5py.File(path, "r", locking=False) as file:
        read("", file)
        file.visititems(read)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # its parent ends it
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for line in sys.stdin:
        with contextlib.suppress(Exception):
            read_metadata(json.loads(line))
        print(flush=True)
