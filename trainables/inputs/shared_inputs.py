"""What every trial of a sweep shares, as plain arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trainables.data.profiling import Row, raw_feature_matrix
from trainables.data.registry import Tool
from trainables.data.templates import TEMPLATES, describe, format_resources
from trainables.llm.place.prompt import NO_PROMPT, Prompt
from trainables.models.features import RESOURCES, FeatureStatistics

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class SharedInputs:
    """N rows, T tools, K templates, L tokens of the longest text, D hidden, R features.

    Plain arrays, so that the object store hands them out without a copy.
    """

    tool_names: tuple[str, ...]
    tool_embeddings: npt.NDArray[np.float32]  # [T, D], of the prompt, by the whole LLM
    name_embeddings: npt.NDArray[np.float32]  # [T, D], of the name, by its input layer alone
    tool_index: IntArray  # [N]
    features: npt.NDArray[np.float32]  # [N, R], standardised
    token_ids: npt.NDArray[np.int32]  # [N, K, L], right-padded with 0
    token_counts: npt.NDArray[np.int32]  # [N, K]
    train_rows: IntArray
    val_rows: IntArray
    prompt_before: IntArray  # token ids before the soft tokens of every row
    prompt_after: IntArray  # and those between them and the text
    written_figures: tuple[tuple[str, ...], ...]  # of the validation rows, as the texts say them
    statistics: FeatureStatistics

    @property
    def hidden_size(self) -> int:
        return int(self.tool_embeddings.shape[1])

    @property
    def prompt(self) -> Prompt:
        return Prompt(tuple(self.prompt_before.tolist()), tuple(self.prompt_after.tolist()))


Encode = Callable[[list[str]], list[list[int]]]


def make_shared_inputs(
    tools: Sequence[Tool],
    rows: Sequence[Row],
    tool_embeddings: npt.NDArray[np.float32],
    name_embeddings: npt.NDArray[np.float32],
    encode: Encode,
    train_rows: IntArray,
    val_rows: IntArray,
    prompt: Prompt = NO_PROMPT,
) -> SharedInputs:
    """Tokenise every row in every template, standardise the features.

    ``encode`` turns texts into token ids, the end of text included.
    """
    raw = raw_feature_matrix(rows)
    statistics = FeatureStatistics.of(raw[train_rows])
    texts = [
        describe(tools[row.tool_index].name, row.resources, k)
        for row in rows
        for k in range(len(TEMPLATES))
    ]
    ids = encode(texts)
    longest = max(map(len, ids))
    shape = (len(rows), len(TEMPLATES))
    token_ids = np.zeros((len(ids), longest), dtype=np.int32)
    for i, sequence in enumerate(ids):
        token_ids[i, : len(sequence)] = sequence
    written = [format_resources(rows[i].resources) for i in val_rows]
    return SharedInputs(
        tool_names=tuple(tool.name for tool in tools),
        tool_embeddings=tool_embeddings,
        name_embeddings=name_embeddings,
        tool_index=np.array([row.tool_index for row in rows], dtype=np.int64),
        features=statistics.standardise(raw),
        token_ids=token_ids.reshape(*shape, longest),
        token_counts=np.array([len(s) for s in ids], dtype=np.int32).reshape(shape),
        train_rows=train_rows,
        val_rows=val_rows,
        prompt_before=np.array(prompt.before, dtype=np.int64),
        prompt_after=np.array(prompt.after, dtype=np.int64),
        written_figures=tuple(tuple(w[name] for name in RESOURCES) for w in written),
        statistics=statistics,
    )
