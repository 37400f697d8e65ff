"""The tensors that a model's files must have, by its config.json alone, for the kinds of model that are met most.

The names and shapes are those of transformers (models/*/modeling_*.py), whose own models are the reference of the test.
Any other kind of model, and a config that leaves out a size, has no layout here: its weights are checked when loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Shape = tuple[int, ...]
Shapes = dict[str, Shape]
_SIZES = ("hidden_size", "intermediate_size", "num_attention_heads", "num_hidden_layers", "vocab_size")


@dataclass(frozen=True)
class Layout:
    """The tensors of a model by name. `prefix` may be absent in all names; `output` too, if it is the embeddings."""

    tensors: Shapes
    prefix: str
    output: str = "lm_head.weight"
    tied: bool = False

    def bare(self, name: str) -> str:
        """A name without the prefix."""
        return name.removeprefix(self.prefix)


def layout_of(config: Mapping[str, object]) -> Layout | None:
    """The layout of the model of a config.json; None if it cannot be told for sure."""
    make = _LAYOUTS.get(str(config.get("model_type")))
    try:
        layout = make(config) if make else None
    except (KeyError, TypeError, ZeroDivisionError):  # a size that the config leaves to the library, or null
        return None
    # Left out, tie_word_embeddings has the default of its kind of model.
    if layout is None or config.get("tie_word_embeddings") is False:
        return layout
    return Layout(layout.tensors, layout.prefix, layout.output, tied=True)


def _linear(name: str, out: int, into: int, bias: bool = False) -> Shapes:
    return {f"{name}.weight": (out, into)} | ({f"{name}.bias": (out,)} if bias else {})


def _norm(name: str, size: int, bias: bool = False) -> Shapes:
    names = ("weight", "bias") if bias else ("weight",)
    return {f"{name}.{one}": (size,) for one in names}


def _norms(size: int, *names: str, bias: bool = False) -> Shapes:
    return {name: shape for norm in names for name, shape in _norm(norm, size, bias).items()}


@dataclass(frozen=True)
class _Sizes:
    """The sizes of a decoder: hidden, of the feed-forward part, of all queries, of all keys, of one head."""

    hidden: int
    inner: int
    queries: int
    keys: int
    head: int

    @classmethod
    def of(cls, config: Mapping[str, Any], head_dim: int | None = None) -> _Sizes:
        """The sizes in a config. `head_dim` is the default of the kind of model; None: hidden size / heads."""
        hidden, inner, heads = (int(config[name]) for name in _SIZES[:3])
        pairs = config.get("num_key_value_heads") if config["model_type"] == "llama" else config["num_key_value_heads"]
        head = config.get("head_dim", head_dim) or hidden // heads
        return cls(hidden, inner, heads * head, (heads if pairs is None else pairs) * head, head)


def _attention(sizes: _Sizes, bias: bool, out_bias: bool, out: str = "o_proj") -> Shapes:
    return (
        _linear("self_attn.q_proj", sizes.queries, sizes.hidden, bias)
        | _linear("self_attn.k_proj", sizes.keys, sizes.hidden, bias)
        | _linear("self_attn.v_proj", sizes.keys, sizes.hidden, bias)
        | _linear(f"self_attn.{out}", sizes.hidden, sizes.queries, out_bias)
    )


def _gated(sizes: _Sizes, bias: bool = False) -> Shapes:
    return (
        _linear("mlp.gate_proj", sizes.inner, sizes.hidden, bias)
        | _linear("mlp.up_proj", sizes.inner, sizes.hidden, bias)
        | _linear("mlp.down_proj", sizes.hidden, sizes.inner, bias)
    )


def _decoder(config: Mapping[str, Any], layer: Shapes, end: Shapes, head_bias: bool = False) -> Layout:
    """A decoder of equal layers below `model.`, and `end` after them."""
    vocabulary, hidden, layers = (int(config[name]) for name in ("vocab_size", "hidden_size", "num_hidden_layers"))
    tensors = {"model.embed_tokens.weight": (vocabulary, hidden)} | _linear("lm_head", vocabulary, hidden, head_bias)
    tensors |= {f"model.{name}": shape for name, shape in end.items()}
    tensors |= {f"model.layers.{n}.{name}": shape for n in range(layers) for name, shape in layer.items()}
    return Layout(tensors, "model.")


def _llama(config: Mapping[str, object]) -> Layout:
    sizes, bias = _Sizes.of(config), bool(config.get("attention_bias", False))
    layer = _attention(sizes, bias, bias) | _gated(sizes, bool(config.get("mlp_bias", False)))
    layer |= _norms(sizes.hidden, "input_layernorm", "post_attention_layernorm")
    return _decoder(config, layer, _norm("norm", sizes.hidden))


def _mistral(config: Mapping[str, object]) -> Layout:
    return _llama({**config, "attention_bias": False, "mlp_bias": False})


def _qwen2(config: Mapping[str, object]) -> Layout:
    sizes = _Sizes.of(config)
    layer = _attention(sizes, bias=True, out_bias=False) | _gated(sizes)
    layer |= _norms(sizes.hidden, "input_layernorm", "post_attention_layernorm")
    return _decoder(config, layer, _norm("norm", sizes.hidden))


def _qwen3(config: Mapping[str, object]) -> Layout:
    sizes, bias = _Sizes.of(config, 128), bool(config.get("attention_bias", False))
    layer = _attention(sizes, bias, bias) | _gated(sizes) | _norms(sizes.head, "self_attn.q_norm", "self_attn.k_norm")
    layer |= _norms(sizes.hidden, "input_layernorm", "post_attention_layernorm")
    return _decoder(config, layer, _norm("norm", sizes.hidden))


def _gemma(config: Mapping[str, object]) -> Layout:
    sizes, bias = _Sizes.of(config, 256), bool(config.get("attention_bias", False))
    kind, names = config["model_type"], ["input_layernorm", "post_attention_layernorm"]
    if kind != "gemma":
        names += ["pre_feedforward_layernorm", "post_feedforward_layernorm"]
    layer = _attention(sizes, bias, bias) | _gated(sizes) | _norms(sizes.hidden, *names)
    if kind == "gemma3_text":
        layer |= _norms(sizes.head, "self_attn.q_norm", "self_attn.k_norm")
    return _decoder(config, layer, _norm("norm", sizes.hidden))


def _olmo(config: Mapping[str, object]) -> Layout:
    """Its norms have no weights."""
    sizes, bias = _Sizes.of(config), bool(config.get("attention_bias", False))
    return _decoder(config, _attention(sizes, bias, bias) | _gated(sizes), {})


def _olmo2(config: Mapping[str, object]) -> Layout:
    sizes, bias = _Sizes.of(config), bool(config.get("attention_bias", False))
    layer = _attention(sizes, bias, bias) | _gated(sizes)
    layer |= _norm("self_attn.q_norm", sizes.queries) | _norm("self_attn.k_norm", sizes.keys)
    layer |= _norms(sizes.hidden, "post_attention_layernorm", "post_feedforward_layernorm")
    return _decoder(config, layer, _norm("norm", sizes.hidden))


def _phi3(config: Mapping[str, object]) -> Layout:
    sizes = _Sizes.of(config)
    layer = (
        _linear("self_attn.qkv_proj", sizes.queries + 2 * sizes.keys, sizes.hidden)
        | _linear("self_attn.o_proj", sizes.hidden, sizes.queries)
        | _linear("mlp.gate_up_proj", 2 * sizes.inner, sizes.hidden)
        | _linear("mlp.down_proj", sizes.hidden, sizes.inner)
        | _norms(sizes.hidden, "input_layernorm", "post_attention_layernorm")
    )
    return _decoder(config, layer, _norm("norm", sizes.hidden))


def _phi(config: Mapping[str, object]) -> Layout:
    sizes = _Sizes.of(config)
    layer = (
        _attention(sizes, bias=True, out_bias=True, out="dense")
        | _linear("mlp.fc1", sizes.inner, sizes.hidden, bias=True)
        | _linear("mlp.fc2", sizes.hidden, sizes.inner, bias=True)
        | _norm("input_layernorm", sizes.hidden, bias=True)
    )
    if config.get("qk_layernorm"):
        layer |= _norms(sizes.head, "self_attn.q_layernorm", "self_attn.k_layernorm", bias=True)
    return _decoder(config, layer, _norm("final_layernorm", sizes.hidden, bias=True), head_bias=True)


def _starcoder2(config: Mapping[str, object]) -> Layout:
    sizes, bias = _Sizes.of(config), bool(config.get("use_bias", True))
    layer = (
        _attention(sizes, bias, bias)
        | _linear("mlp.c_fc", sizes.inner, sizes.hidden, bias)
        | _linear("mlp.c_proj", sizes.hidden, sizes.inner, bias)
        | _norms(sizes.hidden, "input_layernorm", "post_attention_layernorm", bias=True)
    )
    return _decoder(config, layer, _norm("norm", sizes.hidden, bias=True))


def _gpt2(config: Mapping[str, Any]) -> Layout | None:
    """Its linear layers are stored as input x output."""
    if config.get("add_cross_attention") or config.get("pruned_heads"):
        return None
    hidden, inner = int(config["n_embd"]), config.get("n_inner") or 4 * int(config["n_embd"])
    layer = _norms(hidden, "ln_1", "ln_2", bias=True)
    shapes = {"attn.c_attn": 3 * hidden, "attn.c_proj": hidden, "mlp.c_fc": inner, "mlp.c_proj": hidden}
    for name, out in shapes.items():
        into = inner if name == "mlp.c_proj" else hidden
        layer |= {f"{name}.weight": (into, out), f"{name}.bias": (out,)}
    tensors = {
        f"transformer.h.{n}.{name}": shape for n in range(int(config["n_layer"])) for name, shape in layer.items()
    }
    tensors |= {
        "transformer.wte.weight": (config["vocab_size"], hidden),
        **_norm("transformer.ln_f", hidden, bias=True),
    }
    tensors |= {"transformer.wpe.weight": (config["n_positions"], hidden)}
    return Layout(tensors | {"lm_head.weight": (config["vocab_size"], hidden)}, "transformer.")


_LAYOUTS: Mapping[str, Callable[[Mapping[str, Any]], Layout | None]] = {
    "llama": _llama, "granite": _llama, "smollm3": _llama,
    "mistral": _mistral, "qwen2": _qwen2, "qwen3": _qwen3, "gemma": _gemma, "gemma2": _gemma, "gemma3_text": _gemma,
    "olmo": _olmo, "olmo2": _olmo2, "phi3": _phi3, "phi": _phi, "starcoder2": _starcoder2, "gpt2": _gpt2,
}  # fmt: skip
