"""Tiny models of many families: each a config class of transformers, with random weights.

Windows and position borders are shorter than the longest prompts of the tests, and lie between them.
"""

from __future__ import annotations

from typing import Any

# A border between the lengths of the prompts: windows, chunks, the positions that rope was trained for.
WINDOW, BORDER, POSITIONS = 8, 32, 256
VOCABULARY = 512

_SIZE = {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64}
_HEADS = {"num_attention_heads": 4, "max_position_embeddings": POSITIONS}
_LLAMA = {**_SIZE, **_HEADS, "num_key_value_heads": 2}
_WIDE = _LLAMA | {"head_dim": 8}
_LOCAL = _WIDE | {"sliding_window": WINDOW}
_MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
_MAMBA = {"mamba_d_state": 8, "mamba_d_conv": 4, "mamba_expand": 2}
_MAMBA_2 = _MAMBA | {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_n_groups": 1, "mamba_chunk_size": 8}
_ROPE = {"rope_theta": 10_000.0}
_LONG = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [4.0] * 4, "factor": 8.0}
_MLA = {
    "q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8,
    "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "n_shared_experts": 1,
    "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1,
}  # fmt: skip
_TWO = ["sliding_attention", "full_attention"]

# name: model type, and what its config is given.
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "apertus": ("apertus", _LLAMA),
    "arcee": ("arcee", _LLAMA),
    "bamba": ("bamba", _LLAMA | _MAMBA_2 | {"attn_layer_indices": [1]}),
    "biogpt": ("biogpt", _SIZE | _HEADS),
    "bitnet": ("bitnet", _LLAMA),
    "bloom": ("bloom", {"hidden_size": 32, "n_layer": 2, "n_head": 4}),
    "codegen": ("codegen", {"n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4, "n_positions": POSITIONS}),
    "cohere": ("cohere", _LLAMA),
    "cohere2": ("cohere2", _LOCAL | {"layer_types": _TWO}),
    "ctrl": ("ctrl", {"n_embd": 32, "n_layer": 2, "n_head": 4, "dff": 64, "n_positions": POSITIONS}),
    "cwm": ("cwm", _LOCAL | {"layer_types": _TWO}),
    "deepseek_v2": ("deepseek_v2", _SIZE | _HEADS | _MLA | {"num_key_value_heads": 4}),
    "deepseek_v3": ("deepseek_v3", _SIZE | _HEADS | _MLA | {"num_key_value_heads": 4}),
    "diffllama": ("diffllama", _LLAMA),
    "doge": ("doge", _LLAMA),
    "dots1": ("dots1", _LLAMA | {k: v for k, v in _MLA.items() if "lora" not in k and "head_dim" not in k}),
    "ernie4_5": ("ernie4_5", _WIDE),
    "ernie4_5_moe": ("ernie4_5_moe", _WIDE | {"moe_num_experts": 4, "moe_k": 2, "moe_intermediate_size": 32}),
    "exaone4": ("exaone4", _LOCAL | {"layer_types": _TWO}),
    "falcon": ("falcon", _SIZE | {"num_attention_heads": 4, "ffn_hidden_size": 64}),
    "falcon, alibi": ("falcon", _SIZE | {"num_attention_heads": 4, "ffn_hidden_size": 64, "alibi": True}),
    "falcon_h1": ("falcon_h1", _WIDE | _MAMBA_2 | {"mamba_d_ssm": 64}),
    "falcon_mamba": ("falcon_mamba", {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}),
    "flex_olmo": ("flex_olmo", _LLAMA | {"num_experts": 4, "num_experts_per_tok": 2}),
    "gemma": ("gemma", _WIDE),
    "gemma2": ("gemma2", _LOCAL | {"query_pre_attn_scalar": 8, "layer_types": _TWO}),
    "gemma3": ("gemma3_text", _LOCAL | {"query_pre_attn_scalar": 8, "layer_types": _TWO}),
    "gemma4": ("gemma4_text", _LOCAL | {
        "layer_types": _TWO, "hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": VOCABULARY,
        "global_head_dim": 8, "num_kv_shared_layers": 0,
    }),
    "glm": ("glm", _WIDE),
    "glm4": ("glm4", _WIDE),
    "glm4_moe": ("glm4_moe", _WIDE | {
        "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "first_k_dense_replace": 1,
    }),
    "gpt2": ("gpt2", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": POSITIONS}),
    "gpt_bigcode": ("gpt_bigcode", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": POSITIONS}),
    "gpt_neo": ("gpt_neo", {
        "hidden_size": 32, "num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]],
        "window_size": WINDOW, "max_position_embeddings": POSITIONS,
    }),
    "gpt_neox": ("gpt_neox", _SIZE | _HEADS),
    "gpt_oss": ("gpt_oss", _LOCAL | {"num_local_experts": 4, "num_experts_per_tok": 2, "layer_types": _TWO}),
    "gptj": ("gptj", {"n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4, "n_positions": POSITIONS}),
    "granite": ("granite", _LLAMA),
    "granitemoe": ("granitemoe", _LLAMA | {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "granitemoehybrid": ("granitemoehybrid", _LLAMA | _MAMBA_2 | {
        "layer_types": ["mamba", "attention"], "num_local_experts": 4, "num_experts_per_tok": 2,
        "shared_intermediate_size": 32,
    }),
    "helium": ("helium", _WIDE),
    "hunyuan_v1_dense": ("hunyuan_v1_dense", _WIDE),
    "hunyuan_v1_moe": ("hunyuan_v1_moe", _WIDE | {"num_experts": 4, "moe_topk": 2}),
    "jais2": ("jais2", _WIDE),
    "jamba": ("jamba", _LLAMA | _MAMBA | {
        "attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1,
        "num_experts": 4, "num_experts_per_tok": 2, "use_mamba_kernels": False,
    }),
    "jetmoe": ("jetmoe", {
        "hidden_size": 32, "num_hidden_layers": 2, "num_key_value_heads": 2, "kv_channels": 8, "intermediate_size": 64,
        "max_position_embeddings": POSITIONS, "num_local_experts": 4, "num_experts_per_tok": 2,
    }),
    "lfm2": ("lfm2", _LLAMA | {"layer_types": ["conv", "full_attention"], "conv_L_cache": 3}),
    "lfm2_moe": ("lfm2_moe", _LLAMA | _MOE | {
        "layer_types": ["conv", "full_attention"], "conv_L_cache": 3, "num_dense_layers": 1,
    }),
    "llama": ("llama", _LLAMA),
    "llama, dynamic rope": ("llama", _LLAMA | {"max_position_embeddings": BORDER, "rope_parameters": {
        **_ROPE, "rope_type": "dynamic", "factor": 4.0}}),
    "llama, llama3 rope": ("llama", _LLAMA | {"rope_parameters": {
        **_ROPE, "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": BORDER}}),
    "llama, yarn": ("llama", _LLAMA | {"rope_parameters": {
        **_ROPE, "rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": BORDER}}),
    "llama4": ("llama4_text", _WIDE | {
        "intermediate_size_mlp": 64, "num_local_experts": 4, "num_experts_per_tok": 1, "attention_chunk_size": WINDOW,
        "interleave_moe_layer_step": 2,
    }),
    "mamba": ("mamba", {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}),
    "mamba2": ("mamba2", {
        "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8, "num_heads": 8, "head_dim": 8, "n_groups": 1,
        "chunk_size": 8,
    }),
    "minimax": ("minimax", _WIDE | {"layer_types": ["linear_attention", "full_attention"], "num_local_experts": 4,
                                    "num_experts_per_tok": 2, "block_size": 8}),
    "minimax_m2": ("minimax_m2", _WIDE | {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "ministral": ("ministral", _LOCAL | {"layer_types": _TWO}),
    "ministral3": ("ministral3", _WIDE | {"rope_parameters": {
        **_ROPE, "rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": BORDER,
        "llama_4_scaling_beta": 0.1, "beta_fast": 32.0, "beta_slow": 1.0, "mscale": 1.0, "mscale_all_dim": 1.0}}),
    "mistral": ("mistral", _LOCAL),
    "mixtral": ("mixtral", _LLAMA | {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "modernbert-decoder": ("modernbert-decoder", _SIZE | _HEADS | {"local_attention": WINDOW, "layer_types": _TWO}),
    "mpt": ("mpt", {"d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": POSITIONS}),
    "nanochat": ("nanochat", _LLAMA),
    "nemotron": ("nemotron", _LLAMA),
    "nemotron_h": ("nemotron_h", _WIDE | {
        "layers_block_type": ["mamba", "attention"], "mamba_num_heads": 8, "mamba_head_dim": 8, "ssm_state_size": 8,
        "n_groups": 1, "chunk_size": 8, "n_routed_experts": 4, "num_experts_per_tok": 2,
    }),
    "olmo": ("olmo", _LLAMA),
    "olmo2": ("olmo2", _LLAMA),
    "olmo3": ("olmo3", _LLAMA | {"sliding_window": WINDOW, "layer_types": _TWO}),
    "olmoe": ("olmoe", _LLAMA | {"num_experts": 4, "num_experts_per_tok": 2}),
    "openai-gpt": ("openai-gpt", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": POSITIONS}),
    "opt": ("opt", {
        "hidden_size": 32, "num_hidden_layers": 2, "ffn_dim": 64, "num_attention_heads": 4, "word_embed_proj_dim": 32,
        "max_position_embeddings": POSITIONS,
    }),
    "persimmon": ("persimmon", _SIZE | _HEADS),
    "phi": ("phi", _LLAMA),
    "phi3": ("phi3", _LLAMA | {"sliding_window": WINDOW}),
    "phi3, longrope": ("phi3", _LLAMA | {
        "original_max_position_embeddings": BORDER,
        "rope_parameters": {**_ROPE, **_LONG, "original_max_position_embeddings": BORDER}}),
    "phimoe": ("phimoe", _LLAMA | {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "qwen2": ("qwen2", _LLAMA),
    "qwen2, window": ("qwen2", _LLAMA | {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1}),
    "qwen2_moe": ("qwen2_moe", _LLAMA | _MOE | {"shared_expert_intermediate_size": 32}),
    "qwen3": ("qwen3", _WIDE),
    "qwen3_5": ("qwen3_5_text", _WIDE | {
        "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
        "layer_types": ["linear_attention", "full_attention"],
    }),
    "qwen3_moe": ("qwen3_moe", _WIDE | _MOE),
    "qwen3_next": ("qwen3_next", _WIDE | _MOE | {
        "shared_expert_intermediate_size": 32, "linear_num_key_heads": 2, "linear_num_value_heads": 4,
        "linear_key_head_dim": 8, "linear_value_head_dim": 8, "layer_types": ["linear_attention", "full_attention"],
    }),
    "recurrent_gemma": ("recurrent_gemma", _WIDE | {
        "num_hidden_layers": 3, "lru_width": 32, "attention_window_size": WINDOW, "conv1d_width": 4}),
    "rwkv": ("rwkv", {"hidden_size": 32, "num_hidden_layers": 2, "attention_hidden_size": 32, "context_length": 256}),
    "seed_oss": ("seed_oss", _WIDE),
    "smollm3": ("smollm3", _LLAMA),
    "stablelm": ("stablelm", _LLAMA),
    "starcoder2": ("starcoder2", _LLAMA | {"sliding_window": WINDOW}),
    "vaultgemma": ("vaultgemma", _LOCAL | {"query_pre_attn_scalar": 8, "layer_types": _TWO}),
    "xglm": ("xglm", {
        "d_model": 32, "num_layers": 2, "attention_heads": 4, "ffn_dim": 64, "max_position_embeddings": POSITIONS}),
    "zamba2": ("zamba2", _LLAMA | {
        "mamba_d_state": 8, "mamba_d_conv": 4, "mamba_expand": 2, "mamba_ngroups": 1, "n_mamba_heads": 8,
        "chunk_size": 8, "layers_block_type": ["mamba", "hybrid"], "num_mem_blocks": 1,
        "use_shared_attention_adapter": False}),
}  # fmt: skip
# One of each kind: what CI runs.
SHORT = (
    "llama", "llama, dynamic rope", "phi3, longrope", "gpt_neo", "gpt2", "gemma3", "llama4", "bloom", "mamba", "rwkv",
    "qwen3_moe", "recurrent_gemma",
)  # fmt: skip


def family(name: str) -> Any:
    """The model, on the CPU in float32, with eager attention: no kernel of another order of sums."""
    import torch
    import transformers

    kind, values = FAMILIES[name]
    ends = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3}
    config = transformers.AutoConfig.for_model(kind, **values, vocab_size=VOCABULARY, **ends)
    config.use_cache = True
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.mul_(3)  # else all tokens are nearly as likely, and no mistake shows
    return model
