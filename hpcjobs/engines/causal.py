"""Whether a model is a causal language model: one that predicts each token from those before it alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from hpcjobs.engines.lengths import NEAR
from hpcjobs.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Model types that read in both directions unless their config says is_decoder, in transformers 5.
_ENCODERS = {
    "bert", "bert-generation", "big_bird", "camembert", "data2vec-text", "electra", "ernie", "megatron-bert",
    "reformer", "rembert", "roberta", "roberta-prelayernorm", "roc_bert", "roformer", "xlm-roberta", "xlm-roberta-xl",
    "xmod",
}  # fmt: skip
# Whether a model looks ahead, once tried.
_tried: WeakKeyDictionary[PreTrainedModel, bool] = WeakKeyDictionary()


def check_config(name: str, model: Mapping[str, object]) -> None:
    """Raise a ConfigError if this config.json is that of a model that is not causal. Needs no torch."""
    kind, ahead = str(model.get("model_type")), model.get("use_bidirectional_attention")
    if model.get("is_encoder_decoder"):
        raise _refused(name, kind, "is an encoder-decoder")
    if kind in _ENCODERS and not model.get("is_decoder"):
        raise _refused(name, kind, "is an encoder (a decoder's config.json has is_decoder: true)")
    if kind == "xlnet" or (kind == "xlm" and not model.get("causal")) or ahead is True or ahead == "all":
        raise _refused(name, kind, "reads in both directions")


def check_model(model: PreTrainedModel) -> None:
    """Raise a ConfigError if the logits of a loaded model depend on later tokens: tried on two short rows."""
    if model not in _tried:
        _tried[model] = _looks_ahead(model)
    if _tried[model]:
        config = model.config
        raise _refused(getattr(config, "name_or_path", ""), config.model_type, "reads tokens behind the predicted one")


def _looks_ahead(model: PreTrainedModel) -> bool:
    import torch

    size = int(model.config.get_text_config().vocab_size)
    rows = [[*((5 * n + 11) % size for n in range(8)), last % size] for last in (13, 14)]
    try:
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor(rows, device=model.device)).logits
    except Exception:  # a model of any code: whoever runs it next says what is wrong
        return False
    one, other = logits[:, -len(rows[0]) : -1].float()
    return bool((one - other).abs().max() > NEAR[model.dtype.itemsize] * one.std())


def _refused(name: str, kind: str, why: str) -> ConfigError:
    return ConfigError(
        f"model {name!r} ({kind}) {why}: it gives no next token, and no likelihood of one, as a causal language model "
        "does; set model.name to a causal language model"
    )
