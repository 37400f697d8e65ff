"""Load a model and its tokenizer. The public import path of `hpcjobs.engines.loader`."""

from hpcjobs.engines.loader import ModelSource, load_model, load_tokenizer

__all__ = ["ModelSource", "load_model", "load_tokenizer"]
