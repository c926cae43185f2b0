"""A study of samplers: finished diffusion models drawn with each, at several numbers of network evaluations.

    diffusion models -> every candidate on the validation split
                              |
                              v
                         the choice -> what was chosen, on the test split

Every candidate is an evaluation like those of a sweep, which are reused where they are the same. The trials
on the test split are known once the validation split has made the choice; no other candidate is ever scored
there. Nothing is trained.
"""

import dataclasses
import functools
import itertools
from collections.abc import Iterator
from typing import Any, Literal

import pandas as pd

from lola.core.config import fingerprint, require
from lola.data.well.splits import WellSplit
from lola.distributed.jobs.evaluate import evaluation_step
from lola.distributed.trials import Trial
from lola.emulation.sampling_config import SamplerConfig
from lola.evaluation.evaluation_config import EvaluationConfig
from lola.evaluation.scores.rows import model_key
from lola.evaluation.studies.sampler_choice import COMMON, choose, trajectory_scores
from lola.evaluation.tables.stored import read_table
from lola.models.autoencoder_config import CodecConfig
from lola.models.kinds import sampled_kind
from lola.storage.registry import find_emulator
from lola.storage.remote import AnyPath
from lola.storage.stages import Location, Stage, read_manifest, read_manifests
from lola.workflows.base_plan import BasePlan
from lola.workflows.dataset_info import DatasetInfo
from lola.workflows.model_shape import read_model_config
from lola.workflows.studies.samplers import SamplerStudyConfig

Split = Literal["valid", "test"]


@dataclasses.dataclass(frozen=True)
class TrainedModel:
    """A finished diffusion model.

    Arguments:
        folder: Its stage's folder.
        autoencoder: The folder of its autoencoder, None in pixel space.
    """

    folder: AnyPath
    manifest: dict[str, Any]
    autoencoder: AnyPath | None

    @classmethod
    def of(cls, folder: AnyPath) -> "TrainedModel":
        manifest = read_manifest(folder)
        name = manifest["autoencoder"]
        return cls(folder, manifest, folder.parents[1] / "autoencoders" / name if name else None)

    @property
    def name(self) -> str:
        return self.folder.name

    @functools.cached_property
    def codec(self) -> CodecConfig | None:
        """What its latent space is made by."""
        if self.autoencoder is None:
            return None
        config = read_model_config(read_manifest(self.autoencoder))
        assert isinstance(config, CodecConfig)
        return config

    @functools.cached_property
    def compression(self) -> float | None:
        if self.codec is None or self.autoencoder is None:
            return None
        return self.codec.compression(**read_manifest(self.autoencoder)["sizes"])

    def inputs(self, dataset: str) -> dict[str, str]:
        """Fingerprints of what its evaluations read, as a sweep names them."""
        found = {"dataset": dataset, "emulator": self.manifest["fingerprint"]}
        if self.autoencoder is not None:
            found["autoencoder"] = read_manifest(self.autoencoder)["fingerprint"]
        if "statistics" in self.manifest["inputs"]:
            found["statistics"] = self.manifest["inputs"]["statistics"]
        return found

    def check(self, config: SamplerStudyConfig, split: WellSplit, dataset: str) -> None:
        """Raise `ConfigError` unless it is a diffusion model of these data, and the evaluation is for it."""
        manifest, sizes, scoring = self.manifest, self.manifest["sizes"], config.evaluation
        system = split.system.name
        require(
            sampled_kind(manifest["model"]) is not None,
            f"{self.name} is no diffusion model: only they have samplers",
        )
        require(
            manifest["system"] == system,
            f"{self.name} is of {manifest['system']}, not of {system}; choose it with --system",
        )
        trained = manifest["inputs"].get("dataset", dataset)
        require(
            trained == dataset,
            f"{self.name} was trained on other data ({trained[:8]}) than these ({dataset[:8]}); name its "
            "data with --well, --include and --exclude",
        )
        require(
            sizes["parameters"] == split.parameter_count,
            f"{self.name} takes {sizes['parameters']} parameters; these data have {split.parameter_count}",
        )
        stride = manifest["config"].get("stride", scoring.stride)
        require(
            stride == scoring.stride,
            f"{self.name} was trained at a stride of {stride}, not {scoring.stride}: --evaluation.stride",
        )
        for name in ("context", "overlap"):
            value, most = getattr(scoring, name), sizes["window"] - 1
            require(
                value <= most, f"--evaluation.{name} must be 1 to {most} states for {self.name}, not {value}"
            )
        if self.codec is not None:
            self.codec.check_grid(split.grid)


class SamplerPlan(BasePlan[SamplerStudyConfig]):
    """All trials of a study: those of the validation split, then those of what is chosen, on the test split.

    Raises:
        ConfigError: A model does not fit the data or the evaluation, or none exists.
        TrackingError: A model is not found.
    """

    title = "samplers"
    remark = "The evaluations on the test split depend on the choice, and are not included."

    def __init__(
        self, config: SamplerStudyConfig, root: AnyPath, well: Location, data: DatasetInfo | None = None
    ) -> None:
        super().__init__(config, root, well)  # finished models have had data, so that none are expected
        named = tuple(TrainedModel.of(find_emulator(root, each)) for each in config.emulators)
        self.models = named or tuple(self._found())
        require(
            bool(self.models),
            f"{root} has no diffusion model that was trained on the data of {well}; train one",
        )
        require(
            len({model.name for model in self.models}) == len(self.models),
            f"--emulators {', '.join(config.emulators)} contains duplicates",
        )
        for model in self.models:
            model.check(config, self.splits["test"], self.data.fingerprint)

    def _found(self) -> Iterator[TrainedModel]:
        """The finished diffusion models of the storage root that were trained on these data."""
        for folder, manifest in read_manifests(self.root, "emulators"):
            trained = manifest["system"], manifest["inputs"].get("dataset")
            if trained == (self.system.name, self.data.fingerprint) and sampled_kind(manifest["model"]):
                yield TrainedModel.of(folder)

    @property
    def fingerprint(self) -> str:
        models = (model.manifest["fingerprint"] for model in self.models)
        config = self.config.replace(system=self.system.name)
        return fingerprint(config, self.data.fingerprint, *models)

    @property
    def trials(self) -> tuple[Trial, ...]:
        """The trials that are known: of the test split once those of the validation split are finished."""
        first = self.validation
        return first + self.test if all(trial.finished for trial in first) else first

    @functools.cached_property
    def validation(self) -> tuple[Trial, ...]:
        """Every candidate at every number of steps, and the fine reference, on the validation split."""
        config = self.config
        lines = [self._line(title) for title in config.candidates()] + [[config.fine]]
        return tuple(
            self._trial(model, "valid", line) for model, line in itertools.product(self.models, lines)
        )

    def _line(self, title: str) -> list[SamplerConfig]:
        """A candidate at every number of steps that it can take."""
        drawn = (self.config.at(title, steps) for steps in self.config.steps)
        return [sampler for sampler in drawn if sampler is not None]

    @functools.cached_property
    def test(self) -> tuple[Trial, ...]:
        """What was chosen, the sampler in use and the fine reference, on the test split."""
        return tuple(
            self._trial(model, "test", [sampler])
            for model in self.models
            for sampler in self._reported(model)
        )

    def _reported(self, model: TrainedModel) -> list[SamplerConfig]:
        chosen = self.chosen[self.chosen["emulator"].isin([model.name, COMMON])]
        pairs = zip(chosen["sampler"], chosen["steps"], strict=True)
        samplers = [SamplerConfig.titled(title, int(steps)) for title, steps in pairs]
        samplers += [self.config.fine, *self._line(self.config.present.title)]
        return list({(sampler.title, sampler.steps): sampler for sampler in samplers}.values())

    @functools.cached_property
    def chosen(self) -> pd.DataFrame:
        """The choice (see `sampler_choice.choose`), once the validation split is scored."""
        scores = self.scores("valid")
        fine = (scores["sampler"] == self.config.fine.title) & (scores["steps"] == self.config.fine.steps)
        return choose(scores[~fine], self.config.metric)

    def scores(self, split: Split) -> pd.DataFrame:
        """Scores on a split, whose trials are finished (columns as in `sampler_choice.py`)."""
        parts = []
        for model, stage in self.stages(split):
            assert isinstance(stage.config, EvaluationConfig)
            assert stage.config.sampler is not None
            metrics = read_table(stage.folder / "metrics.parquet")
            parts.append(
                trajectory_scores(metrics, self.system.ranges).assign(
                    emulator=model.name,
                    compression=model.compression or 1.0,
                    split=split,
                    sampler=stage.config.sampler.title,
                    steps=stage.config.sampler.steps,
                )
            )
        return pd.concat(parts, ignore_index=True)

    def stages(self, split: Split) -> Iterator[tuple[TrainedModel, Stage]]:
        """The evaluations on a split, each with its model."""
        by_name = {model.manifest["fingerprint"]: model for model in self.models}
        for trial in self.validation if split == "valid" else self.test:
            for step in trial.steps:
                yield by_name[step.stage.inputs["emulator"]], step.stage

    def _trial(self, model: TrainedModel, split: Split, samplers: list[SamplerConfig]) -> Trial:
        """A model drawn with a sampler, at one or several numbers of steps, on a split."""
        manifest, scoring = model.manifest, self.config.evaluation
        kind = sampled_kind(manifest["model"])
        assert kind is not None  # `check` has been there
        name = manifest.get("arm", {"name": kind.name})["name"]
        model_name = model_key(name, scoring.weights)
        what = manifest["what"].replace(name, model_name, 1)
        steps = []
        for sampler in samplers:
            # What a sweep may share has its name
            title = f"{what}-valid-{sampler.title}" if split == "valid" else what
            stage = Stage(
                root=self.root,
                kind="evaluations",
                system=self.system.name,
                what=f"{title}-s{sampler.steps}",
                config=scoring.replace(sampler=sampler, split=split),
                inputs=model.inputs(self.data.fingerprint) | self.system.scoring,
            )
            steps.append(
                evaluation_step(
                    stage,
                    self.system,
                    self.datasets,
                    dataset=self.data.fingerprints[split],
                    trajectories=self.data.trajectories[split],
                    model=model_name,
                    compression=model.compression,
                    training_seed=manifest["config"].get("training", {}).get("seed", 0),
                    autoencoder=model.autoencoder,
                    emulator=model.folder,
                )
            )
        name = f"{model.name} on {split}: {samplers[0].title}"
        return Trial(name if len(samplers) > 1 else f"{name}, {samplers[0].steps} steps", tuple(steps))
