"""The names of live metrics.

Live metrics are what Prometheus and the alerts see, under names with the prefix `ray_`. They are gauges of
the present, made by `lola.distributed.runner.telemetry` from the stages' records.
"""

import dataclasses
from typing import Literal

SWEEP = ("sweep", "system")
RUN = (*SWEEP, "stage", "model", "run")


@dataclasses.dataclass(frozen=True)
class LiveMetric:
    """A metric for Prometheus."""

    kind: Literal["gauge", "counter", "histogram"]
    description: str  # what it is; the unit is in its name, else it is a number or the loss's own
    record: str = ""  # its name in records of stages, if it is one of theirs; a counter's is the total there
    # what tells its series apart: `run` is a stage's folder, `stage` and `model` what it makes
    labels: tuple[str, ...] = RUN


METRICS = {
    "lola_train_loss": LiveMetric("gauge", "Training loss, if finite.", "train/loss"),
    "lola_train_nonfinite": LiveMetric("gauge", "Whether the last loss or gradient norm was not finite."),
    "lola_train_gradient_norm": LiveMetric("gauge", "Gradient norm.", "train/gradient_norm"),
    "lola_train_skipped_steps_total": LiveMetric(
        "counter", "Steps skipped for a gradient that is not finite.", "train/skipped"
    ),
    "lola_train_samples_total": LiveMetric("counter", "Samples trained on.", "train/samples"),
    "lola_train_samples_per_second": LiveMetric("gauge", "Throughput.", "train/samples_per_second"),
    "lola_train_step_seconds": LiveMetric("gauge", "Time of a step.", "train/seconds_per_step"),
    "lola_train_data_wait_ratio": LiveMetric(
        "gauge", "Share of time spent waiting for data.", "train/data_wait"
    ),
    "lola_train_memory_bytes": LiveMetric("gauge", "Largest memory of a worker.", "train/memory_bytes"),
    "lola_train_mfu": LiveMetric("gauge", "Model operations over the devices' peak.", "train/mfu"),
    "lola_valid_loss": LiveMetric("gauge", "Validation loss, if finite.", "valid/loss"),
    "lola_encode_states_per_second": LiveMetric("gauge", "States encoded.", "encode/states_per_second"),
    "lola_encode_bytes_per_second": LiveMetric("gauge", "Latents written.", "encode/bytes_per_second"),
    "lola_encode_shards_left": LiveMetric("gauge", "Shards still to be encoded."),
    "lola_evaluate_trajectories_left": LiveMetric("gauge", "Trajectories still to be scored."),
    "lola_stage_running": LiveMetric("gauge", "Whether the stage is being made."),
    "lola_stage_progress_ratio": LiveMetric("gauge", "How much of the stage is done."),
    "lola_stage_reported_timestamp_seconds": LiveMetric("gauge", "When the stage reported last, Unix time."),
    "lola_stage_seconds": LiveMetric("histogram", "How long stages took.", labels=(*SWEEP, "stage", "model")),
    "lola_sweep_trials": LiveMetric("gauge", "Trials by state.", labels=(*SWEEP, "state")),
    "lola_sweep_remaining_seconds": LiveMetric("gauge", "Expected time to finish.", labels=SWEEP),
    "lola_storage_free_bytes": LiveMetric("gauge", "Free space of the storage root.", labels=SWEEP),
    "lola_storage_size_bytes": LiveMetric("gauge", "Size of the storage root's disk.", labels=SWEEP),
}
