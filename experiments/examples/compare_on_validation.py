"""Emulators compared on the validation split, where choices belong: `compare_on_validation.py WELL NAME...`.

It prints, by range of lead times, the CRPS over the deviation of the true field, and spread over skill.
`NAME@2` draws a diffusion model with 2 solver steps. Stride and ranges are those of Euler; trajectories must
have equal lengths.
"""

import dataclasses
import sys

import torch

import lola

STRIDE, MEMBERS, TRAJECTORIES = 4, 8, 32


def statistics(emulator, split, index):
    """Mean squares and CRPS by field and time, `(4, C, L)`, of an ensemble from the first state on."""
    truth = split.read(index, start=0, stop=split.trajectories[index].steps, stride=STRIDE)
    known, future = truth[:, :1], truth[:, 1:]
    members = lola.rollout(
        emulator, known, split.parameters(index), future.shape[1], members=MEMBERS, seed=index
    )
    scores = lola.score(future, members)
    variance = future.var(dim=tuple(range(2, future.ndim)), correction=0)
    return torch.stack([scores["crps"], variance, scores["spread"] ** 2, scores["skill"] ** 2])


def compare(well, names):
    print("| emulator | CRPS / deviation, 1–20 | 21–60 | 61–end | spread / skill, 1–20 | 21–60 | 61–end |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name in names:
        name, _, steps = name.partition("@")
        emulator = lola.load_emulator(name)
        if steps:
            emulator = dataclasses.replace(emulator, sampler=emulator.sampler.replace(steps=int(steps)))
        assert emulator.system is not None
        split = lola.open_well(well, emulator.system.name, "valid")
        count = min(TRAJECTORIES, len(split.trajectories))
        crps, variance, spread, skill = torch.stack(
            [statistics(emulator, split, i) for i in range(count)]
        ).mean(0)
        times = STRIDE * torch.arange(1, crps.shape[1] + 1)
        ranges = [(times <= 20), (times > 20) & (times <= 60), (times > 60)]
        relative, ratio = crps / variance.sqrt(), (spread / skill).sqrt()
        cells = [f"{values[:, chosen].mean():.3f}" for values in (relative, ratio) for chosen in ranges]
        print(f"| {name}{steps and f', {steps} steps'} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    with torch.inference_mode():
        compare(sys.argv[1], sys.argv[2:])
