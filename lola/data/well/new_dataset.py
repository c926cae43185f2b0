"""The folder of a dataset that is written: it appears whole, and replaces another only on demand."""

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from lola.core.errors import DataError
from lola.core.filesystem import translate_os_errors
from lola.data.hdf5 import SUFFIXES
from lola.storage.stages import atomic_path


@contextlib.contextmanager
def new_dataset(folder: Path, overwrite: bool) -> Iterator[Path]:
    """A temporary folder whose `data` and `stats.yaml` become those of a dataset when the block ends.

    Raises:
        DataError: The dataset exists and may not be replaced.
    """
    present = [folder / name for name in ("data", "stats.yaml") if (folder / name).exists()]
    if present and not overwrite:
        raise DataError(
            f"{present[0]} exists; give another name or folder, or replace it (overwrite=True, --overwrite)"
        )
    files = [path for path in (folder / "data").rglob("*") if not path.is_dir()]
    others = [path for path in files if path.suffix not in SUFFIXES]
    if others:
        raise DataError(
            f"{others[0]} is no file of a dataset and would be deleted; move it, or give another name"
        )
    if not folder.exists():
        with atomic_path(folder) as tmp_path:
            yield tmp_path
        return
    tmp_path = folder / f".new.{uuid.uuid4().hex[:8]}"
    with translate_os_errors(folder, "write"):
        try:
            yield tmp_path
            for path in present:  # kept until the new files have their places
                path.rename(tmp_path / f"old-{path.name}")
            for name in ("data", "stats.yaml"):
                os.replace(tmp_path / name, folder / name)
        except BaseException:
            for path in present:
                if (old := tmp_path / f"old-{path.name}").exists():
                    shutil.rmtree(path, ignore_errors=True)
                    os.replace(old, path)
            raise
        finally:
            shutil.rmtree(tmp_path, ignore_errors=True)
