"""Every family of decoders: an encoder can be trained against it, or one line says why not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from tests.conftest import CPU, byte_tokenizer
from tests.trainables.llm.families import D, tiny_config, tiny_model
from trainables.config import ModelConfig
from trainables.errors import LLMError
from trainables.llm.frozen import FrozenLLM
from trainables.llm.location import hidden_size, llm_hidden_size
from trainables.llm.place.prompt import Prompt
from trainables.llm.place.sequences import Rows
from trainables.llm.probe import load_probed

# Mixtures of experts, state spaces, linear attention, scaled or capped logits and embeddings,
# learnt, relative and rotary positions, decoders of larger wholes.
FAMILIES = """
    afmoe apertus arcee aria_text axk1 axk2 bailing_hybrid bamba bart beam bert bert-generation
    big_bird bigbird_pegasus biogpt bitnet blenderbot blenderbot-small bloom camembert codegen
    cohere cohere2 cohere2_moe cohere_compass_text ctrl cwm data2vec-text dbrx deepseek_v2
    deepseek_v3 deepseek_v32 diffllama doge dots1 dots3_note_text electra ernie ernie4_5
    ernie4_5_moe exaone4 exaone_moe falcon falcon_h1 falcon_mamba flex_olmo flint fuyu gemma gemma2
    gemma3_text gemma4_unified_text git glm glm4 glm4_moe glm4_moe_lite glm_moe_dsa gpt-sw3 gpt2
    gpt_bigcode gpt_neo gpt_neox gpt_neox_japanese gpt_oss gptj granite granite_swa granitemoe
    granitemoe_swa granitemoehybrid granitemoeshared helium hrm_text hunyuan_v1_dense
    hunyuan_v1_moe hy_v3 hy_v4 hyperclovax inkling2_text inkling_text internlm3 iquestcoder jais2
    jamba jetmoe kimi_linear kolibri1 laguna lfm2 lfm2_moe lfm3 llama llama4_text longcat_flash
    mamba mamba2 marian mbart megatron-bert mellum mimo_v2_flash minicpm3 minimax minimax_m2
    minimax_m3_vl_text ministral ministral3 mistral mixtral modernbert-decoder moshi mpt mvp
    nanochat nemotron nemotron_h olmo olmo2 olmo3 olmo_hybrid olmoe openai-gpt opt pegasus
    persimmon phi phi3 phimoe plbart qwen2 qwen2_moe qwen3 qwen3_5_moe_text qwen3_5_text qwen3_moe
    qwen3_next recurrent_gemma rembert roberta roberta-prelayernorm roc_bert roformer rwkv seed_oss
    smollm3 solar_open stablelm starcoder2 trocr vaultgemma whisper xglm xlm xlm-roberta
    xlm-roberta-xl xlstm xmod youtu zamba zamba2 zaya
""".split()
NO_EMBEDDINGS = "it does not take embeddings in the place of tokens: "
NOT_ITS_TOKENS = "embeddings that are put in are not to it what its own tokens are"
REFUSED = {
    "cpmant": NO_EMBEDDINGS,
    "deepseek_v4": NO_EMBEDDINGS,  # some of its experts are chosen by the token's id
    "gemma3n_text": NOT_ITS_TOKENS,  # each layer has embeddings of the tokens, too
    "gemma4_text": NO_EMBEDDINGS,
    "prophetnet": "the losses of a text in a batch are not those that it has alone",
    "qwen4_exp_text": NO_EMBEDDINGS,  # so does it, of several tokens
    "reformer": NO_EMBEDDINGS,
    "xlnet": "it is not causal",
}
# Wholes with parts for images or sound, whose text is that of a family above; those that cannot be
# this small.
LEFT_OUT = """
    blt dots3_note emu3 gemma3 gemma3n gemma4 gemma4_assistant gemma4_unified
    gemma4_unified_assistant got_ocr2 llama4 mllama moss_transcribe_diarize musicgen
    musicgen_melody phi4_multimodal qwen3_5 qwen3_5_moe qwen4_exp
""".split()
# The same classes without their causal mask.
BIDIRECTIONAL = {
    "bert": {"is_decoder": False},
    "electra": {"is_decoder": False},
    "gemma3_text": {"use_bidirectional_attention": True},
    "llama": {"is_causal": False},
    "roberta": {"is_decoder": False},
    "xlm": {"causal": False},
}
PROMPT = Prompt(before=(40, 41, 42, 43, 44), after=(50, 51))
TEXT = "zip folder on small input: 8 cores, 7.5 GB."


def written(family: str, directory: Path, **changes: object) -> ModelConfig:
    """The family's LLM as a directory."""
    tiny_model(tiny_config(family, **changes)).save_pretrained(directory)
    byte_tokenizer().save_pretrained(directory)
    return ModelConfig(llm_model=str(directory), cache_dir=str(directory / "cache"))


def logits_of(llm: FrozenLLM, **inputs: Tensor) -> Tensor:
    """[L, V], of one text, unpadded."""
    with torch.no_grad():
        return llm.model(**inputs, use_cache=False).logits[0].float()


def after_soft(llm: FrozenLLM, soft: Tensor, ids: Tensor) -> Tensor:
    """[1 + L, V]: the logits at the soft token and at each of ``ids``."""
    embedded = torch.cat([soft[None], llm.embed_tokens(ids)])
    return logits_of(llm, inputs_embeds=embedded[None].detach())


def losses_of(logits: Tensor, ids: Tensor) -> Tensor:
    return nn.functional.cross_entropy(logits, ids, reduction="none")


def check_losses(llm: FrozenLLM) -> None:
    """Padded batches against single texts, embeddings against ids, later tokens without effect."""
    ids = torch.tensor(llm.token_ids([TEXT], special=False)[0])
    other = torch.cat([ids[:20], ids[20:].flip(0)])
    soft = torch.randn(3, D, generator=torch.Generator().manual_seed(1))
    soft[2] = llm.embed_tokens(ids[:1])[0].detach()
    soft.requires_grad_()
    texts = torch.stack([ids, ids, torch.cat([ids[1:], ids[:1]])])
    counts = torch.tensor([len(ids), 9, len(ids) - 1])
    losses = llm.token_losses(soft, texts.int(), counts)
    whole, short, from_token = losses.detach().split(counts.tolist())
    tolerance = {"rtol": 1e-4, "atol": 1e-4}
    naive = losses_of(after_soft(llm, soft[0].detach(), ids)[:-1], ids)
    torch.testing.assert_close(whole, naive, **tolerance)
    naive = losses_of(after_soft(llm, soft[1].detach(), ids[:9])[:-1], ids[:9])
    torch.testing.assert_close(short, naive, **tolerance)
    by_ids = losses_of(logits_of(llm, input_ids=ids[None])[:-1], ids[1:])
    torch.testing.assert_close(from_token, by_ids, **tolerance)
    changed = losses_of(after_soft(llm, soft[0].detach(), other)[:20], ids[:20])
    torch.testing.assert_close(whole[:20], changed, **tolerance)
    (gradient,) = torch.autograd.grad(losses[: len(ids)].sum(), soft)
    assert gradient[0].abs().max() > 0
    assert not gradient[1:].any(), "another row's soft token"
    assert torch.isfinite(gradient).all()


def check_states(llm: FrozenLLM) -> None:
    prompts = ["Tool: a", f"Tool: b\nDescription: {TEXT}"]
    together = llm.last_token_states(prompts)
    for prompt, state in zip(prompts, together, strict=True):
        ids = torch.tensor(llm.token_ids([prompt]))
        alone = llm.body(input_ids=ids, use_cache=False).last_hidden_state[0, -1]
        torch.testing.assert_close(state, alone, rtol=1e-4, atol=1e-4)


def check_writing(llm: FrozenLLM) -> None:
    """Against the plain loop: a whole pass for each token."""
    soft = torch.randn(2, D, generator=torch.Generator().manual_seed(2))
    for row, ids in zip(soft, llm.continuations(soft, 8).tolist(), strict=True):
        expected: list[int] = []
        while len(expected) < 8 and 1 not in expected:  # the end of a text
            so_far = torch.tensor(expected, dtype=torch.long)
            expected.append(int(after_soft(llm, row, so_far)[-1].argmax()))
        assert ids[: len(expected)] == expected
        assert not any(ids[len(expected) :])


def between(llm: FrozenLLM, soft: Tensor, ids: Tensor) -> Tensor:
    """[V of each of ids, and of the one after them]: after the prompt around soft tokens [S, D]."""
    parts = [torch.tensor(part) for part in (PROMPT.before, PROMPT.after)]
    before, after = (llm.embed_tokens(part) for part in parts)
    embedded = torch.cat([before, soft, after, llm.embed_tokens(ids)])
    logits = logits_of(llm, inputs_embeds=embedded[None].detach())
    return logits[-1 - len(ids) :]


def check_place(llm: FrozenLLM) -> None:
    """Prompt and several soft tokens; two runs with other numbers of them in one pass."""
    ids = torch.tensor(llm.token_ids([TEXT], special=False)[0])[:24]
    generator = torch.Generator().manual_seed(3)
    many, few = (torch.randn(1, s, D, generator=generator).requires_grad_() for s in (4, 1))
    groups = [
        Rows(many, ids[None].int(), torch.tensor([len(ids)])),
        Rows(few, ids[None, :13].int(), torch.tensor([11])),
    ]
    losses = llm.joint_losses(groups, PROMPT)
    naive = [
        losses_of(between(llm, group.soft[0], text)[:-1], text)
        for group, text in zip(groups, (ids, ids[:11]), strict=True)
    ]
    torch.testing.assert_close(losses.detach(), torch.cat(naive), rtol=1e-4, atol=1e-4)
    gradient, others = torch.autograd.grad(losses[: len(ids)].sum(), [many, few])
    assert gradient.abs().amax(dim=-1).min() > 0, "a soft token that nothing depends on"
    assert not others.any(), "another run's soft token"
    (written,) = llm.continuations(many.detach(), 4, PROMPT).tolist()
    so_far = torch.tensor(written[:1])
    assert written[0] == int(between(llm, many[0], so_far[:0])[-1].argmax())
    if written[0] != 1:  # the end of a text
        assert written[1] == int(between(llm, many[0], so_far)[-1].argmax())


def check_family(family: str, directory: Path) -> None:
    config = written(family, directory)
    if family in REFUSED:
        with pytest.raises(LLMError) as refusal:
            load_probed(config, CPU, torch.float32)
        assert REFUSED[family] in str(refusal.value)
        return
    llm = load_probed(config, CPU, torch.float32)
    assert llm.hidden_size == hidden_size(directory) == llm_hidden_size(config) == D
    check_losses(llm)
    check_states(llm)
    check_writing(llm)
    check_place(llm)


@pytest.mark.parametrize("family", [*FAMILIES, *REFUSED])
def test_a_family_works_as_defined_or_is_refused(family: str, tmp_path: Path) -> None:
    check_family(family, tmp_path)


def test_no_family_is_forgotten() -> None:
    tried = [*FAMILIES, *REFUSED, *LEFT_OUT]
    assert sorted(tried) == sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("family", BIDIRECTIONAL)
def test_what_sees_the_tokens_to_come_is_refused(
    family: str, precision: torch.dtype, tmp_path: Path
) -> None:
    config = written(family, tmp_path, **BIDIRECTIONAL[family])
    with pytest.raises(LLMError, match="it is not causal"):
        load_probed(config, CPU, precision)
