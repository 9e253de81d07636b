"""The configuration of one training: sections, ranges, and how a file becomes an object."""

from __future__ import annotations

import contextlib
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    TypeAdapter,
    model_validator,
)

from trainables.files import PLAIN_PATH, is_uri
from trainables.names import visible
from trainables.retired_keys import refuse_retired_keys
from trainables.text import line_breaks, unusable_characters
from trainables.yaml_config import apply_overrides, build, read_yaml, shown

PACKAGE = Path(__file__).parent
DEFAULT_CONFIG = PACKAGE / "configs" / "pretrain_encoder.yaml"
EMBEDDED = "embedded"
EMBEDDED_DIR = PACKAGE / "llm" / "embedded"
SHIPPED = "default"
SHIPPED_DATA = {
    "tool_registry": PACKAGE / "data" / "tools.json",
    "profiling_data": PACKAGE / "data" / "profiling.csv",
}

# Keys that are newer than some files of runs, with what was done before there was a choice.
BEFORE_THE_KEY: dict[str, dict[str, Any]] = {
    "model": {"prompt": None, "num_soft_tokens": 1},
    "data": {"split": "rows"},
}

SOFT_TOKENS = 16  # of an LLM that was not made for one
MOST_SOFT_TOKENS = 64
# Adam moves a scalar by its learning rate at each step, a matrix's output by far more.
GATE_OF_EMBEDDED, GATE_OF_OTHERS = 10.0, 100.0
FORMS: tuple[Literal["NFC", "NFD"], ...] = ("NFC", "NFD")
NUMERIC = (int, float, int | None, float | None)


class Section(BaseModel):
    """A part of a configuration: unknown keys are errors, values cannot be changed later."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _no_truth_value_as_number(cls, values: Any) -> Any:
        """Python takes true for 1; in a configuration it is a mistake."""
        if isinstance(values, Mapping):
            for key, value in values.items():
                field = cls.model_fields.get(key)
                numeric = field is not None and field.annotation in NUMERIC
                if numeric and isinstance(value, bool):
                    raise ValueError(f"`{key}` is {str(value).lower()}, but must be a number")
        return values


def _usable_path(value: str) -> str:
    """One line without control characters, and no home of a user that does not exist."""
    if not visible(value):
        raise ValueError(f"{shown(value)}, but a path must be printable text, and not blank")
    if bad := unusable_characters(value):
        raise ValueError(f"a path must be printable text, but has {bad}")
    if breaks := line_breaks(value):
        raise ValueError(f"a path must be printable text of one line, but has {breaks}")
    if is_uri(value):
        raise ValueError(f"{shown(value)} is a URI, but must be {PLAIN_PATH}")
    try:
        Path(value).expanduser()
    except RuntimeError as error:
        raise ValueError(str(error)) from None
    return value


PathText = Annotated[str, AfterValidator(_usable_path)]


TokenIds = list[Annotated[int, Field(ge=0, lt=2**31, strict=True)]]


class PromptConfig(Section):
    """The text around the soft tokens, or the ids of its tokens."""

    before: str | TokenIds = Field("", description="What the LLM reads before the soft tokens.")
    after: str | TokenIds = Field("", description="Between the soft tokens and the text.")


def _number_of_soft_tokens(value: Any) -> Any:
    if value == "auto" or (type(value) is int and 1 <= value <= MOST_SOFT_TOKENS):
        return value
    raise ValueError(
        f"{shown(value)}, but must be `auto` or a whole number from 1 to {MOST_SOFT_TOKENS}"
    )


SoftTokens = Annotated[int | Literal["auto"], PlainValidator(_number_of_soft_tokens)]
_number: TypeAdapter[float] = TypeAdapter(
    Annotated[float, Field(ge=0, le=1000, allow_inf_nan=False)]
)


def _multiplier(value: Any) -> Any:
    if value == "auto":
        return value
    with contextlib.suppress(ValueError):  # pydantic's own is one as well
        if not isinstance(value, bool):
            return _number.validate_python(value)
    raise ValueError(f"{shown(value)}, but must be `auto` or a number from 0 to 1000")


Multiplier = Annotated[float | Literal["auto"], PlainValidator(_multiplier)]


class ModelConfig(Section):
    llm_model: PathText = Field(
        EMBEDDED,
        description="`embedded`, a Hugging Face hub id, or the directory of a causal LM.",
    )
    architecture: Literal["gated_fusion", "embedding_attention"] = Field(
        "gated_fusion", description="The gated encoder, or the earlier one without a gate."
    )
    prompt: Literal["auto"] | PromptConfig | None = Field(
        "auto",
        description="What stands around the soft tokens: `{before: TEXT, after: TEXT}`, or null "
        "for nothing. auto: the LLM's chat template, or its first token; nothing for the embedded "
        "LLM.",
    )
    num_soft_tokens: SoftTokens = Field(
        "auto",
        description="Vectors that the encoder puts in the place of tokens; auto: 1 for the "
        f"embedded LLM, else {SOFT_TOKENS}.",
    )
    d_resource: int | None = Field(
        None, ge=1, le=65536, description="Width of the resource tokens; null: the LLM's D."
    )
    num_attention_heads: int = Field(
        8, ge=1, le=1024, description="Heads of the fusion; must divide D."
    )
    dropout: float = Field(0.1, ge=0, lt=1, description="Dropout of the MLP and the attention.")
    resource_tokens: Literal["features", "summary"] = Field(
        "features", description="Seven resource tokens, or the MLP's summary alone."
    )
    normalize: bool = Field(True, description="Bring both streams to unit RMS before the gate.")
    cache_dir: PathText = Field(
        "hub", description="Where hub models, tool embeddings and tokenised texts are cached."
    )
    trust_remote_code: bool = Field(
        False, description="Let a hub model run its own Python code; off unless you trust it."
    )

    @model_validator(mode="after")
    def _width_of_the_resource_stream(self) -> ModelConfig:
        if self.architecture == "embedding_attention" and self.d_resource is not None:
            raise ValueError(
                f"`d_resource` is {self.d_resource}, but must be null with `architecture: "
                "embedding_attention`, whose resource stream has the LLM's hidden size"
            )
        return self

    @model_validator(mode="after")
    def _one_soft_token_of_the_earlier_encoder(self) -> ModelConfig:
        if self.architecture == "embedding_attention" and self.num_soft_tokens not in ("auto", 1):
            raise ValueError(
                f"`num_soft_tokens` is {self.num_soft_tokens}, but must be 1 or auto with "
                "`architecture: embedding_attention`, which has one"
            )
        return self

    @property
    def soft_tokens(self) -> int:
        """S, where ``auto`` stands as well."""
        if self.num_soft_tokens != "auto":
            return self.num_soft_tokens
        one = self.llm_model == EMBEDDED or self.architecture == "embedding_attention"
        return 1 if one else SOFT_TOKENS

    @property
    def settled(self) -> ModelConfig:
        """With what ``auto`` means for this LLM, as far as that is known without its tokenizer."""
        prompt = None if self.prompt == "auto" and self.llm_model == EMBEDDED else self.prompt
        changed = {"num_soft_tokens": self.soft_tokens, "prompt": prompt}
        return self.model_copy(update=changed)


class DataConfig(Section):
    tool_registry: PathText = Field(
        SHIPPED, description="JSON list of {name, description}; default: shipped."
    )
    profiling_data: PathText = Field(SHIPPED, description="CSV of rows; default: shipped.")
    validation_fraction: float = Field(
        0.1,
        gt=0,
        lt=1,
        description="Share of each tool's rows held out for validation; one row at least, and "
        "never all.",
    )
    split: Literal["distinct_rows", "rows"] = Field(
        "distinct_rows",
        description="What is held out or trained: a row with all its copies, or, as in runs from "
        "before this key, each copy by itself.",
    )
    split_seed: int = Field(
        0, ge=0, lt=2**31, description="Seed of the split into training and held-out."
    )


class TrainingConfig(Section):
    batch_size: int = Field(16, ge=1, le=10**6, description="Rows per optimiser step.")
    num_epochs: int = Field(30, ge=1, le=10**6, description="Passes over the training rows.")
    learning_rate: float = Field(1e-3, gt=0, le=1, description="Peak learning rate of AdamW.")
    gate_lr_multiplier: Multiplier = Field(
        "auto",
        description="The gate's learning rate is this times learning_rate; auto: "
        f"{GATE_OF_EMBEDDED:g} with the embedded LLM, else {GATE_OF_OTHERS:g}.",
    )
    residual_lr_multiplier: float = Field(
        300.0,
        ge=0,
        le=1000,
        description="The learning rate of what each of several soft tokens adds for itself is this "
        "times learning_rate.",
    )
    weight_decay: float = Field(
        0.01, ge=0, le=1, description="Weight decay of AdamW; never on the gate."
    )
    max_grad_norm: float | None = Field(
        1.0, gt=0, description="Gradients are clipped to this norm; null: never."
    )
    scheduler: Literal["cosine", "linear", "constant"] = Field(
        "cosine", description="Shape of the learning rate after the warm-up."
    )
    warmup_ratio: float = Field(
        0.05, ge=0, lt=1, description="Share of all steps in which the learning rate rises."
    )
    target_loss: float | None = Field(
        None, gt=0, description="Training ends when val_loss is at most this; null: never."
    )
    patience: int | None = Field(
        None,
        ge=1,
        le=10**6,
        description="Training ends after so many epochs without a lower val_loss; null: never.",
    )
    stop_stuck_gates: bool = Field(
        False, description="Training ends when the gate cannot open (the finding gate_stuck)."
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="Of the LLM's numbers; auto: bf16 where the device is faster with it."
    )
    seed: int = Field(0, ge=0, lt=2**31, description="Seed of weights, order, templates, dropout.")
    deterministic: bool | None = Field(
        None, description="Bit-equal repeats on one machine; null: on without a GPU."
    )
    field_accuracy_samples: int = Field(
        256, ge=0, le=10**6, description="Held-out rows decoded at the end; 0: none."
    )

    @property
    def gate_multiplier(self) -> float:
        """``gate_lr_multiplier``; where nobody has settled it, that of the embedded LLM."""
        wanted = self.gate_lr_multiplier
        return GATE_OF_EMBEDDED if wanted == "auto" else wanted


class LoggingConfig(Section):
    output_dir: PathText = Field(
        "outputs/pretrain_encoder", description="Where `train` writes checkpoints."
    )
    wandb_project: str = Field(
        "resource-encoder", min_length=1, description="The W&B project of --log_wandb."
    )


class PretrainConfig(Section):
    """One training, whole: ``model``, ``data``, ``training``, ``logging``."""

    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    training: TrainingConfig = TrainingConfig()
    logging: LoggingConfig = LoggingConfig()

    @property
    def settled(self) -> PretrainConfig:
        """With what ``auto`` means for this LLM, as far as that is known without its tokenizer."""
        training, embedded = self.training, self.model.llm_model == EMBEDDED
        if training.gate_lr_multiplier == "auto":
            gate = GATE_OF_EMBEDDED if embedded else GATE_OF_OTHERS
            training = training.model_copy(update={"gate_lr_multiplier": gate})
        return self.model_copy(update={"model": self.model.settled, "training": training})


def load_config(path: Path, overrides: Sequence[str] = ()) -> PretrainConfig:
    """Read a YAML file, apply ``a.b=c`` overrides, check it, make its paths absolute."""
    mapping = apply_overrides(read_yaml(path), overrides)
    return parse_config(mapping, source=str(path), base=path.parent)


def parse_config(mapping: Mapping[str, Any], *, source: str, base: Path) -> PretrainConfig:
    """Check a mapping; relative paths are looked for below ``base``, then the working directory."""
    refuse_retired_keys(mapping, source)
    config = build(PretrainConfig, mapping, source)
    model = {
        "llm_model": resolve_llm(config.model.llm_model, base),
        "cache_dir": str(Path(config.model.cache_dir).expanduser().absolute()),
    }
    data = {key: resolve_data(key, getattr(config.data, key), base) for key in SHIPPED_DATA}
    return config.model_copy(
        update={
            "model": config.model.model_copy(update=model),
            "data": config.data.model_copy(update=data),
        }
    ).settled


def as_begun(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration that a run was begun with, from the file that it left.

    A key that is newer than the file means what was done before there was that key.
    """
    return {
        **mapping,
        **{
            section: {**values, **(mapping.get(section) or {})}
            for section, values in BEFORE_THE_KEY.items()
        },
    }


def resolve_data(key: str, value: str, base: Path) -> str:
    """The absolute path of a data file; a path that exists nowhere is left to its reader."""
    if value == SHIPPED:
        return str(SHIPPED_DATA[key])
    return str(_first_existing(value, base) or Path(value).absolute())


def resolve_llm(value: str, base: Path) -> str:
    """An existing directory becomes an absolute path; `embedded` and hub ids stay."""
    if value == EMBEDDED:
        return value
    found = _first_existing(value, base)
    return str(found) if found else value


def _first_existing(value: str, base: Path) -> Path | None:
    """As it is written, or, since some systems rewrite names, in another form of the same text."""
    forms = dict.fromkeys([value, *(unicodedata.normalize(form, value) for form in FORMS)])
    try:
        candidates = [p for form in forms for p in (base / form, Path(form).expanduser())]
        return next((p.absolute() for p in candidates if p.exists()), None)
    except (OSError, ValueError, RuntimeError):
        return None
