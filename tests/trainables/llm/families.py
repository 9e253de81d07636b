"""Every family of causal LMs in transformers at D = 32, with random weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PretrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

D = 32
TINY: dict[str, Any] = {
    # sizes
    "vocab_size": 300, "hidden_size": D, "d_model": D, "n_embd": D, "n_embed": D, "dim": D,
    "embed_dim": D, "embedding_size": D, "word_embed_proj_dim": D, "emb_dim": D, "d_embed": D,
    "intermediate_size": 64, "ffn_dim": 64, "n_inner": 64, "d_ff": 64, "d_inner": 64,
    "ffn_hidden_size": 64, "decoder_ffn_dim": 64, "encoder_ffn_dim": 64, "dim_ff": 64, "dff": 64,
    "input_embedding_size": D, "output_embedding_size": D,
    "num_hidden_layers": 2, "n_layer": 2, "n_layers": 2, "num_layers": 2, "decoder_layers": 2,
    "encoder_layers": 2, "num_decoder_layers": 2, "num_encoder_layers": 2,
    "num_attention_heads": 4, "n_head": 4, "n_heads": 4, "num_heads": 4,
    "decoder_attention_heads": 4, "encoder_attention_heads": 4,
    "num_decoder_attention_heads": 4, "num_encoder_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "dim_head": 8, "rotary_dim": 4,
    "max_position_embeddings": 256, "n_positions": 256, "max_seq_len": 256,
    # mixtures of experts
    "num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4, "moe_num_experts": 4,
    "num_experts_per_tok": 2, "moe_topk": 2, "moe_k": 2, "num_selected_experts": 2,
    "moe_intermediate_size": 32, "shared_expert_intermediate_size": 32, "n_group": 1,
    "topk_group": 1, "n_shared_experts": 1, "num_shared_experts": 1,
    "shared_intermediate_size": 32, "moe_shared_expert_intermediate_size": 32,
    # latent attention
    "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8,
    "v_head_dim": 8, "qk_head_dim": 16, "index_n_heads": 2, "index_head_dim": 8,
    # state spaces, linear attention
    "state_size": 8, "conv_kernel": 4, "time_step_rank": 4, "mamba_d_state": 8,
    "mamba_n_heads": 8, "mamba_d_head": 8, "mamba_n_groups": 1, "mamba_chunk_size": 16,
    "chunk_size": 16, "mamba_num_heads": 8, "mamba_head_dim": 8, "n_groups": 1,
    "mamba_dt_rank": 4, "mamba_d_ssm": 64, "linear_num_key_heads": 2,
    "linear_num_value_heads": 4, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
    "lru_width": D, "attention_window_size": 16, "sliding_window": 16,
    "initializer_range": 0.2, "init_std": 0.2,  # large enough for a soft token to steer it
    # tokens with a meaning
    "bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 0,
    "decoder_start_token_id": 1, "forced_eos_token_id": None,
    # masked language models that can be made to continue texts
    "is_decoder": True, "causal": True,
}  # fmt: skip
# What a family needs beside or instead.
LATENT: dict[str, Any] = {"num_key_value_heads": 4, "head_dim": 8}
LINEAR_AND_FULL: dict[str, Any] = {"layer_types": ["linear_attention", "full_attention"]}
SPECIAL: dict[str, dict[str, Any]] = {
    "axk1": LATENT,
    "axk2": LATENT,
    "bailing_hybrid": {
        **LATENT, **LINEAR_AND_FULL, "num_experts_per_token": 2, "num_expert_group": 1,
        "linear_head_dim": 8, "linear_num_heads": 4, "model_max_length": 256,
        "mlp_layer_types": ["dense", "sparse"],
    },
    "bamba": {"attn_layer_indices": [1]},
    "cohere": {"logit_scale": 0.3},
    "cohere_compass_text": {
        "layer_types": ["full_attention", "full_attention"],
        "rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 1e4}},
    },
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "rope_theta": 1e4, "clip_qkv": 8.0},
        "ffn_config": {"ffn_hidden_size": 64, "moe_num_experts": 4, "moe_top_k": 2},
    },
    "deepseek_v2": LATENT,
    "deepseek_v3": LATENT,
    "deepseek_v32": LATENT,
    "deepseek_v4": {"num_key_value_heads": 1, "o_groups": 2, "o_lora_rank": 8},
    "dots3_note_text": {
        **LATENT, "layer_types": ["sliding_attention", "indexed_attention"], "head_dim": 16,
        "per_layer_config": {}, "shared_experts_intermediate_size": 32,
    },
    "gemma3_text": {"final_logit_softcapping": 5.0},
    "gemma3n_text": {
        "num_kv_shared_layers": 0, "hidden_size_per_layer_input": 8,
        "vocab_size_per_layer_input": 300, "laurel_rank": 4, "intermediate_size": 64,
        "activation_sparsity_pattern": [0.0, 0.0],
        "layer_types": ["sliding_attention", "full_attention"],
    },
    "gemma4_text": {
        "hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 300,
        "num_kv_shared_layers": 0, "per_layer_config": {},
    },
    "git": {"vision_config": {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4,
                              "intermediate_size": 64, "image_size": 32, "patch_size": 16}},
    "glm4_moe_lite": LATENT,
    "glm_moe_dsa": LATENT,
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "granite": {"logits_scaling": 8.0, "embedding_multiplier": 12.0, "residual_multiplier": 0.2},
    "granitemoehybrid": LINEAR_AND_FULL,
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "kimi_linear": {
        **LATENT, **LINEAR_AND_FULL, "num_experts_per_token": 2, "linear_head_dim": 8,
        "linear_num_heads": 4, "model_max_length": 256, "mlp_layer_types": ["dense", "sparse"],
    },
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
    "lfm3": {"layer_types": ["conv", "full_attention"]},
    "longcat_flash": LATENT,
    "mamba2": {"num_heads": 8, "head_dim": 8},
    "minicpm3": LATENT,
    "nemotron_h": {"layers_block_type": ["mamba", "attention"]},
    "qwen3_5_moe_text": LINEAR_AND_FULL,
    "qwen3_5_text": LINEAR_AND_FULL,
    "qwen3_next": LINEAR_AND_FULL,
    "qwen4_exp_text": {**LINEAR_AND_FULL, "hc_count": 2, "hc_lowrank": 8, "ple_embed_dim": 32,
        "indexer_n_heads": 2, "indexer_kv_heads": 1, "indexer_head_dim": 8, "indexer_budget": 8,
        "indexer_compress_ratio": 4, "ple_layer_ids": [1], "ngram_vocab_size_base": 100,
        "heads_per_ngram": 2, "make_ngram_vocab_size_divisible_by": 1, "split_ngram_parts": 1,
    },
    "recurrent_gemma": {"block_types": ["recurrent", "attention"], "num_key_value_heads": 4},
    "reformer": {
        "attn_layers": ["local", "local"], "axial_pos_shape": [16, 16],
        "axial_pos_embds_dim": [16, 16], "attention_head_size": 8, "feed_forward_size": 64,
        "local_attn_chunk_length": 16,
    },
    "rembert": {"input_embedding_size": D},
    "roc_bert": {
        "shape_embed_dim": D, "shape_vocab_size": 300, "pronunciation_embed_dim": D,
        "pronunciation_vocab_size": 300, "concat_input": False,
    },
    "xlstm": {"embedding_dim": D, "num_blocks": 2, "qk_dim_factor": 1.0},
    "xmod": {"default_language": "en_XX"},
    "youtu": LATENT,
    "zamba": {
        "layers_block_type": ["linear_attention", "hybrid", "hybrid"], "num_hidden_layers": 3,
        "attention_hidden_size": 64,
        "attention_head_dim": 16, "num_key_value_heads": 4,
    },
    "zamba2": {
        "layers_block_type": ["linear_attention", "hybrid"], "mamba_headdim": 8,
        "n_mamba_heads": 8, "num_key_value_heads": 4, "attention_head_dim": 16,
    },
    "zaya": {"num_experts_per_tok": 1, "router_hidden_size": 8},
}  # fmt: skip


def tiny_config(family: str, **changes: Any) -> PretrainedConfig:
    kind = CONFIG_MAPPING[family]
    known = kind()
    nested = getattr(known, "text_config", None)
    names = set(known.to_dict()) | set(kind.attribute_map)
    values = {k: v for k, v in TINY.items() if k in names}
    values |= SPECIAL.get(family, {})
    if nested is not None and "text_config" not in values:
        values["text_config"] = tiny_config(nested.model_type).to_dict()
    return kind(**values | changes)


def tiny_model(config: PretrainedConfig) -> nn.Module:
    """Random in every weight, also where a family begins with zeros; padding's row may be zero."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
        with torch.no_grad():
            for weight in model.parameters():
                if not weight.any():
                    weight.normal_(std=0.2)
    return model.eval()
