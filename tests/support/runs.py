"""Published runs of small networks, with their data."""

import torch
from plain import Autoencoder, State, denoise, neural_solver, write_run

AE = {"arch": "dcae", "lat_channels": 3, "hid_channels": [4, 8], "hid_blocks": [1, 1], "pix_channels": 5}
VIT = {"arch": "vit", "emb_features": 8, "hid_channels": 16, "hid_blocks": 1, "attention_heads": 2}
SCHEDULE = {"name": "log_logit", "sigma_min": 1e-3, "sigma_max": 1e3, "scale": 1.0, "shift": 0.0}
DATASET = {
    "name": "euler_open",
    "physics": ["euler_multi_quadrants_openBC"],
    "include_filters": [],
    "dimensions": ["x", "y"],
    "periodic": False,
    "fields": ["density", "energy", "momentum_x", "momentum_y", "pressure"],
    "transform": {0: "log1p", 1: "log1p"},
    "stats": {"mean": [0.5, 1.0, 0.1, 0.0, 0.2], "std": [0.3, 0.5, 0.6, 0.7, 0.4]},
    "augment": ["random_axis_flip", "log_scalars"],
}
TRAJECTORY = {"length": 5, "stride": 4, "context": {"lmbda": 1.0, "rho": 0.66, "atleast": 1}}


def write_emulator(folder, kind, channels=3, parameters=5, shape=(5, 4, 4), dataset=None, **config):
    P, x, mask = State(), torch.randn(1, channels, *shape), torch.ones(1, 1, 1, 1, 1, dtype=torch.bool)
    label = torch.randn(1, parameters)
    if kind == "surrogate":
        section = VIT
        neural_solver(P, section, x, mask, label)
    else:
        section = VIT | {"masked": True, "schedule": SCHEDULE}
        denoise(P, section, x, torch.tensor([0.5]), mask, label)
    return write_run(
        folder, {kind: section, "dataset": dataset or DATASET, "trajectory": TRAJECTORY, **config}, P
    )


def write_autoencoder(folder, dataset=None):
    network = Autoencoder(AE, channels=5)
    network.decode(network.encode(torch.randn(1, 5, 8, 8)))
    return write_run(folder, {"ae": AE, "dataset": dataset or DATASET}, network.P)
