"""A report as a stage: a page with its figures and tables, and the data that it was made of."""

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from lola.core.config import Config
from lola.core.filesystem import fsync_path, translate_os_errors
from lola.evaluation.page.page import Page, write_page
from lola.evaluation.scores.rows import PARQUET, ROWS
from lola.storage.remote import AnyPath
from lola.storage.stages import Stage, atomic_path, output_folder


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportConfig(Config):
    """What a report is: the version of its looks."""

    version: int = 7


TABLES = ("metrics", "spectra")


def report_stage(root: AnyPath, system: str, what: str, inputs: Mapping[str, str]) -> Stage:
    """The stage of a report.

    Arguments:
        what: What it reports on, for people.
        inputs: Fingerprints of what it is made of, by role.
    """
    return Stage(root=root, kind="reports", system=system, what=what, config=ReportConfig(), inputs=inputs)


def page_path(stage: Stage) -> AnyPath:
    return stage.folder / "report.html"


@contextlib.contextmanager
def report_folder(stage: Stage) -> Iterator[Path]:
    """A folder of this machine whose files are on disk in a report's when the block ends."""
    with output_folder(stage.folder) as folder:
        yield folder
        with translate_os_errors(folder, "write"):
            fsync_path(folder)


def commit_report(stage: Stage, page: Page, data: Mapping[str, pd.DataFrame], **counts: Any) -> AnyPath:
    """Write a report and finish its stage; returns the page.

    Arguments:
        stage: The report's.
        data: What it was made of, each a Parquet file, by name.
    """
    with report_folder(stage) as folder:
        write_page(folder, page)
        for name, table in data.items():
            table.to_parquet(folder / f"{name}.parquet", compression="zstd", index=False)
    stage.commit(**counts, rows={name: len(table) for name, table in data.items()})
    return page_path(stage)


def write_passing_tables(
    tables: Iterable[tuple[pa.Table, pa.Table]], folder: Path, rows: dict[str, int]
) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Write metrics and spectra into two Parquet files while they pass, so that none is kept.

    Arguments:
        tables: Rows, pair by pair.
        folder: Where the files are when all have passed.
        rows: Is given the rows of each file.
    """
    with contextlib.ExitStack() as stack:
        writers: list[pq.ParquetWriter] = []
        for pair in tables:
            for i, (name, table) in enumerate(zip(TABLES, pair, strict=True)):
                if len(writers) == i:
                    tmp_path = stack.enter_context(atomic_path(folder / f"{name}.parquet"))
                    writers.append(stack.enter_context(pq.ParquetWriter(tmp_path, table.schema, **PARQUET)))
                writers[i].write_table(table, row_group_size=ROWS)
                rows[name] = rows.get(name, 0) + len(table)
            yield pair
            del pair, table  # before the next are read
            pa.default_memory_pool().release_unused()
