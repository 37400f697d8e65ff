"""What becomes of each key of a model's generation_config.json.

Answers are greedy, or drawn as `task.generation` says; of the model come its end tokens, stop strings and what changes
logits. The table has every key of transformers' GenerationConfig; tests/engines/test_generation_keys.py compares them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from hpcjobs.run_folder.files import read_json

Use = Literal["used", "no effect", "not used"]

_PROCESSORS = (
    "min_length", "min_new_tokens", "repetition_penalty", "encoder_repetition_penalty", "no_repeat_ngram_size",
    "encoder_no_repeat_ngram_size", "bad_words_ids", "sequence_bias", "forced_bos_token_id", "forced_eos_token_id",
    "exponential_decay_length_penalty", "suppress_tokens", "begin_suppress_tokens", "guidance_scale",
    "watermarking_config", "renormalize_logits",
)  # fmt: skip
_NO_EFFECT = (
    "pad_token_id", "bos_token_id", "decoder_start_token_id", "output_attentions", "output_hidden_states",
    "output_scores", "output_logits", "return_dict_in_generate", "use_cache", "_from_model_config",
    "transformers_version",
)  # fmt: skip
_NOT_USED = (
    "do_sample", "temperature", "top_k", "top_p", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff",
    "max_length", "max_new_tokens", "max_time", "early_stopping", "num_beams", "length_penalty", "num_beam_groups",
    "diversity_penalty", "constraints", "force_words_ids", "penalty_alpha", "dola_layers", "low_memory",
    "num_return_sequences", "remove_invalid_values", "token_healing", "cache_implementation", "cache_config",
    "max_cache_len", "use_mtp", "is_assistant", "num_assistant_tokens", "num_assistant_tokens_schedule",
    "assistant_confidence_threshold", "prompt_lookup_num_tokens", "max_matching_ngram_size", "assistant_early_exit",
    "assistant_lookbehind", "target_lookbehind", "assistant_ensemble_weight", "speculation_type", "compile_config",
    "disable_compile", "continuous_batching_config", "prefill_chunk_size",
)  # fmt: skip
USES: dict[str, Use] = {
    **dict.fromkeys((*_PROCESSORS, "eos_token_id", "stop_strings"), "used"),
    **dict.fromkeys(_NO_EFFECT, "no effect"),
    **dict.fromkeys(_NOT_USED, "not used"),
}
# Values with which a key that is not used would change nothing either.
_IDLE: dict[str, tuple[object, ...]] = {
    "temperature": (1.0,), "top_k": (0, 50), "top_p": (1.0,), "typical_p": (1.0,), "epsilon_cutoff": (0.0,),
    "eta_cutoff": (0.0,), "num_beams": (1,), "length_penalty": (1.0,), "num_beam_groups": (1,),
    "diversity_penalty": (0.0,), "num_return_sequences": (1,), "num_assistant_tokens": (20,),
    "num_assistant_tokens_schedule": ("constant",), "assistant_confidence_threshold": (0.4,),
    "assistant_lookbehind": (10,), "target_lookbehind": (10,), "max_length": (20,),
}  # fmt: skip


def generation_values(folder: Path) -> tuple[Path, dict[str, object]]:
    """The generation settings of a model folder, and the file that has them.

    Where there is no generation_config.json, transformers takes such keys from config.json, where older models have
    them (`GenerationConfig.from_model_config`, version 5).
    """
    file = folder / "generation_config.json"
    if file.is_file():
        return file, dict(read_json(file))
    file = folder / "config.json"
    values = read_json(file) if file.is_file() else {}
    return file, {key: value for key, value in values.items() if key in USES}


def is_guided(scale: object) -> bool:
    """Whether this `guidance_scale` asks for classifier-free guidance, which remembers the steps before."""
    return scale not in (None, 1)


def unused_keys(values: Mapping[str, object]) -> list[str]:
    """The keys of a generation_config.json that say something and are not used, also those that nobody here knows."""
    said = {key: value for key, value in values.items() if value is not None and value is not False}
    return sorted(
        key
        for key, value in said.items()
        if USES.get(key, "not used") == "not used" and value not in _IDLE.get(key, ())
    )


def processor_keys(values: Mapping[str, object]) -> dict[str, Any]:
    """The keys that change logits, with their values."""
    return {key: values[key] for key in _PROCESSORS if values.get(key) is not None}


def stop_strings(values: Mapping[str, Any]) -> tuple[str, ...]:
    """The model's own stop strings."""
    stops = values.get("stop_strings") or ()
    return (stops,) if isinstance(stops, str) else tuple(stops)
