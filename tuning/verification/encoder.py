"""The encoder as a whole: rows stand alone, ``encode`` is ``forward``, all that learns learns."""

from __future__ import annotations

from collections import Counter

import torch

from trainables.models.features import RESOURCES, raw_features
from tuning.verification.check import (
    STATISTICS,
    TOOLS,
    Check,
    ProblemError,
    Subjects,
    must_equal,
    random_tensor,
    small_encoder,
)

FIGURE_VALUES = dict(zip(RESOURCES, ("medium", 4, 16, 50, 8, 120.5), strict=True))


@torch.no_grad()
def _rows_stand_alone(subjects: Subjects) -> str:
    encoder = small_encoder()
    tools = torch.tensor([0, 1, 2, 1])
    figures = random_tensor(len(tools), len(RESOURCES))
    alone = [encoder(tools[i : i + 1], figures[i : i + 1]) for i in range(len(tools))]
    must_equal(encoder(tools, figures), torch.cat(alone), "the output of a row in a batch")
    return ""


@torch.no_grad()
def _encode_is_forward(subjects: Subjects) -> str:
    encoder = small_encoder()
    features = STATISTICS.standardise([raw_features(FIGURE_VALUES)])
    for index, tool in enumerate(TOOLS):
        expected = encoder(torch.tensor([index]), torch.from_numpy(features))[0]
        must_equal(encoder.encode(tool.name, FIGURE_VALUES), expected, f"`encode` of {tool.name}")
    return ""


def _optimiser_has_all(subjects: Subjects) -> str:
    run = subjects.run()
    groups = run.optimizer.param_groups
    times = Counter(id(p) for group in groups for p in group["params"])
    for name, parameter in run.encoder.named_parameters():
        if parameter.requires_grad and times[id(parameter)] != 1:
            raise ProblemError(f"`{name}` is {times[id(parameter)]} times in the optimiser")
    gate = run.encoder.gate
    (group,) = (g for g in groups if any(p is gate for p in g["params"]))
    if group["weight_decay"] != 0 or len(group["params"]) != 1:
        raise ProblemError("the gate shares a group, or is decayed towards 0")
    return ""


CHECKS = (
    Check(
        "a row's output depends on its own tool and figures alone",
        "let no operation mix rows of a batch",
        _rows_stand_alone,
    ),
    Check(
        "`encode` gives what `forward` gives for the standardised figures",
        "standardise with the encoder's own statistics, in evaluation mode",
        _encode_is_forward,
    ),
    Check(
        "every trainable parameter is in the optimiser once, the gate by itself and undecayed",
        "build the groups from `get_trainable_parameters`",
        _optimiser_has_all,
    ),
)
