"""Where a run's checkpoints are while it trains: in its stage's folder, or wherever else fsspec reaches.

Ray Train keeps the folder, and a list of the checkpoints in it that it resumes a run from. A checkpoint that
is not on this list, since its upload was cut off, is written again.

Neither is written to survive a power cut by Ray Train itself. So a worker syncs what it has uploaded to a
folder (`persist`), and before a run starts, checkpoints that are corrupt are removed from folder and list,
and a list that is corrupt is written again from the checkpoints (`repair`): the run resumes from the newest
whole one.
"""

import contextlib
import dataclasses
import json
import logging
import math
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pyarrow.fs
import ray
from ray.train import Checkpoint, CheckpointConfig
from ray.train.v2._internal.execution.checkpoint.checkpoint_manager import CheckpointManager
from ray.train.v2._internal.execution.storage import StorageContext

from lola.core.errors import ClusterError, DataError
from lola.core.filesystem import fsync_folder, fsync_path, make_folder, translate_os_errors
from lola.core.strict_json import dumps
from lola.storage.remote import is_url, open_filesystem
from lola.storage.stages import Stage, write_json
from lola.training.checkpoint import read_position
from lola.training.config import TrainingConfig

LIST_FILE = "checkpoint_manager_snapshot.json"  # Ray Train's
MARK = ".reached-by-workers"
SCORE_METRIC = "valid/loss"  # what checkpoints are kept by


@dataclasses.dataclass(frozen=True)
class CheckpointStore:
    """The checkpoints of one run.

    Arguments:
        url: The folder that Ray Train's folder is in, a path or a URL.
    """

    NAME: ClassVar[str] = "checkpoints"

    url: str

    @classmethod
    def of(cls, stage: Stage, config: TrainingConfig) -> "CheckpointStore":
        if config.checkpoints is None:
            return cls(str(stage.folder))
        return cls(f"{config.checkpoints.rstrip('/')}/{stage.name}")

    @property
    def filesystem(self) -> fsspec.AbstractFileSystem:
        """The filesystem; credentials and endpoints come from the environment."""
        return self._found[0]

    @property
    def _found(self) -> tuple[fsspec.AbstractFileSystem, str]:
        """Filesystem and path; a folder's name may hold what means something in a URL, such as `::`."""
        if not is_url(self.url):
            return fsspec.filesystem("file"), self.url.removeprefix("file://")
        return open_filesystem(self.url, use_listings_cache=False)

    @property
    def parent(self) -> str:
        """The path in the filesystem."""
        return self._found[1]

    @property
    def remote(self) -> bool:
        """Whether it is anywhere but in a folder of this machine, or of one that all nodes see."""
        return "file" not in self.filesystem.protocol

    def arrow(self) -> pyarrow.fs.FileSystem | None:
        """The filesystem for Ray Train; None is that of a folder."""
        return pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(self.filesystem)) if self.remote else None

    @staticmethod
    def kept(count: int) -> CheckpointConfig:
        """Which checkpoints are kept: so many, the best, and the last."""
        return CheckpointConfig(
            num_to_keep=count, checkpoint_score_attribute=SCORE_METRIC, checkpoint_score_order="min"
        )

    def manager(self, count: int) -> CheckpointManager:
        """What keeps so many checkpoints and their list, as it does in the controller of a run of Ray Train.

        Outside of one there is no event loop, and nobody to notify of a checkpoint.
        """
        logging.getLogger("ray.train").setLevel(logging.ERROR)  # it says of every list that it goes on with
        manager = CheckpointManager(
            self.kept(count), StorageContext(self.parent, self.NAME, storage_filesystem=self.arrow())
        )
        manager._notify = lambda: None  # type: ignore[method-assign]
        return manager

    @property
    def _mark(self) -> str:
        return f"{self.parent}/{self.NAME}/{MARK}"

    def mark(self) -> None:
        """Write an empty file, so that a worker on another node can tell whether it reaches this folder."""
        with translate_os_errors(self.url):
            self.filesystem.makedirs(f"{self.parent}/{self.NAME}", exist_ok=True)
            self.filesystem.pipe_file(self._mark, b"")

    def require_mark(self) -> None:
        """Refuse a folder that is not the one that was marked.

        Raises:
            ClusterError: It is a folder of this node alone.
        """
        if not self.filesystem.exists(self._mark):
            raise ClusterError(
                f"{self.url} is not the same folder on all nodes; name one that all see, or a bucket"
            )

    def tmp_path(self) -> Path:
        """Where a worker writes a checkpoint before it is uploaded."""
        if self.remote:
            return Path(tempfile.gettempdir())
        folder = Path(self.parent) / self.NAME
        with translate_os_errors(folder):
            make_folder(folder)
        return folder

    def persist(self, storage: Any, checkpoint: Checkpoint, name: str) -> Checkpoint:
        """Upload a checkpoint under a name as Ray Train's storage does, and sync it if that is a folder."""
        done = storage.persist_current_checkpoint(checkpoint, name)
        if not self.remote:
            with translate_os_errors(done.path):
                fsync_path(Path(done.path))
                fsync_folder(Path(done.path).parent)
        return done

    def repair(self) -> list[str]:
        """Remove what is corrupt from a folder and from Ray Train's list; returns a line for each fault.

        The run's lease guarantees that no other process writes there. Objects appear whole; their scores may
        be null.
        """
        folder = Path(self.parent) / self.NAME
        if self.remote:
            return self._repair_scores()
        if not folder.is_dir():
            return []
        for left in folder.glob(".tmp-*"):
            shutil.rmtree(left, ignore_errors=True)
        whole, faults = {}, {}
        for path in sorted(folder.glob("step-*")):
            try:
                whole[path.name] = read_position(path).step
            except DataError as error:
                faults[path.name] = str(error).partition(";")[0]
                shutil.rmtree(path)
        results, fault = _read_list(folder / LIST_FILE)
        fault = replace_missing_scores(results) or fault
        for name in (entry["checkpoint_dir_name"] for entry in results):
            if name not in whole:
                fault = faults.get(name, f"checkpoint {folder / name} is missing")
        if not fault:
            return []
        if results:  # others were never listed, since their upload was cut off
            listed = {entry["checkpoint_dir_name"] for entry in results}
            whole = {name: step for name, step in whole.items() if name in listed}
        if not whole:
            (folder / LIST_FILE).unlink(missing_ok=True)
            return [fault, "training starts again"]
        write_json(folder / LIST_FILE, _list_of(results, whole))
        return [fault, f"training resumes from step {max(whole.values())}"]

    def _repair_scores(self) -> list[str]:
        """Repair a list of checkpoints that is an object."""
        path = f"{self.parent}/{self.NAME}/{LIST_FILE}"
        try:
            listed = json.loads(self.filesystem.cat_file(path))
        except FileNotFoundError:
            return []
        fault = replace_missing_scores([*listed["checkpoint_results"], listed["latest_checkpoint_result"]])
        if not fault:
            return []
        self.filesystem.pipe_file(path, dumps(listed).encode())
        return [fault]

    def remove(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.filesystem.rm(f"{self.parent}/{self.NAME}", recursive=True)


def _read_list(path: Path) -> tuple[list[dict[str, Any]], str]:
    """The checkpoints of Ray Train's list, none if there is no list, and what is wrong with it."""
    try:
        results = json.loads(path.read_text())["checkpoint_results"]
        return [entry for entry in results if entry["checkpoint_dir_name"]], ""
    except FileNotFoundError:
        return [], ""
    except (ValueError, LookupError, TypeError):
        return [], f"the list of checkpoints {path} is corrupt"


def _list_of(results: list[dict[str, Any]], whole: dict[str, int]) -> dict[str, Any]:
    """Ray Train's list of the checkpoints that are whole.

    Arguments:
        results: The entries of an earlier list, with their metrics, in order of their scores.
        whole: The steps of the checkpoints, by name.
    """
    kept = [entry for entry in results if entry["checkpoint_dir_name"] in whole] or [
        {"version": 0, "checkpoint_dir_name": name, "metrics": {"step": step}} for name, step in whole.items()
    ]
    steps = [whole[entry["checkpoint_dir_name"]] for entry in kept]
    return {
        "ray_version": ray.__version__,
        "checkpoint_results": kept,
        "checkpoint_report_indices": [sorted(steps).index(step) for step in steps],
        "latest_checkpoint_result": kept[steps.index(max(steps))],
        "pending_training_results": [],
        "pending_validation_specs": [],
        "current_report_index": len(kept),
        "validated_checkpoint_dir_names": [],
        "timed_out_validation_checkpoint_dir_names": [],
        "failed_validation_checkpoint_dir_names": [],
    }


def replace_missing_scores(results: list[dict[str, Any]]) -> str:
    """Give checkpoints the worst finite validation loss if theirs is not finite, in place; returns a fault.

    Ray Train writes such a loss as null, and cannot order checkpoints by that.
    """
    fault = ""
    for entry in results:
        metrics = entry["metrics"]
        if SCORE_METRIC in metrics and (
            metrics[SCORE_METRIC] is None or not math.isfinite(metrics[SCORE_METRIC])
        ):
            metrics[SCORE_METRIC] = sys.float_info.max
            fault = f"the validation loss of checkpoint {entry['checkpoint_dir_name']} was not finite"
    return fault
