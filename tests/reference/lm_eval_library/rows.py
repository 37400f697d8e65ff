"""Rows of the data sets that tasks of lm_eval's library read, with the columns that the hub's have.

`right` is what the model of these tests answers to a row's prompt (answers.json): two rows of three have it as their
right answer, so that scores of generation are not all 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tests.lmeval_tasks import WORDS

Row = dict[str, Any]
MakeRow = Callable[[int, str], Row]
LETTERS = "ABCDEFGHIJ"
ROWS = 6


def word(number: int) -> str:
    """A word; the same for the same number."""
    return WORDS[number * 5 % len(WORDS)] + "sti"[: number % 4]


def text(number: int, length: int = 5) -> str:
    """A sentence of `length` words."""
    return " ".join(word(number * 7 + place * (number % 3 + 1)) for place in range(length)) + "."


def options(number: int, count: int = 4) -> list[str]:
    """Different short answers."""
    return [f"{word(number + place * 2)} {word(place)}" for place in range(count)]


def listed(number: int, count: int = 4, labels: str = LETTERS) -> Row:
    """Answers as a dict of two lists."""
    return {"text": options(number, count), "label": list(labels[:count])}


def _pair(first: str, second: str, labels: int = 2) -> MakeRow:
    return lambda n, right: {first: text(n), second: text(n + 1, 3), "label": n % labels, "idx": n}


def _lettered(question: str = "question", answer: str = "answer") -> MakeRow:
    return lambda n, right: {
        question: text(n),
        **dict(zip("ABCD", options(n), strict=True)),
        answer: LETTERS[n % 4],
        "subject": "x",
    }


def _story(n: int, right: str) -> Row:
    parts = {f"input_sentence_{place}": text(n + place, 4) for place in range(1, 5)}
    return parts | {"sentence_quiz1": text(n), "sentence_quiz2": text(n + 5), "answer_right_ending": n % 2 + 1}


def _squad_like(n: int, right: str) -> Row:
    return {
        "doc_id": str(n),
        "title": word(n),
        "text": f"{text(n, 8)} {word(n)} is",
        "value": right or "nothing",
        "context": text(n),
    }


def _solution(n: int, right: str) -> Row:
    return {
        "problem": f"What is {n} + {n}?",
        "level": "Level 1",
        "type": "Algebra",
        "solution": f"It is $\\boxed{{{right}}}$.",
    }


def _drop(n: int, right: str) -> Row:
    nothing = {"day": "", "month": "", "year": ""}
    answer = {"number": "", "date": nothing, "spans": [right, word(n)] if n % 4 == 1 else [right]}
    validated = {"number": ["7", ""], "date": [nothing, nothing | {"year": "1990"}], "spans": [[], []]}
    return {
        "section_id": "s",
        "query_id": str(n),
        "passage": text(n, 9),
        "question": text(n, 3),
        "answer": answer | {"hit_id": "", "worker_id": ""},
        "validated_answers": validated,
    }


def _coqa(n: int, right: str) -> Row:
    said = {"input_text": [word(n), right], "answer_start": [0, 0], "answer_end": [1, 1], "turn_id": [1, 2]}
    other = said | {"input_text": [word(n), word(n + 1)]}
    return {
        "id": str(n),
        "source": "x",
        "story": text(n, 8),
        "questions": {"input_text": [text(n, 3), text(n + 1, 3)], "turn_id": [1, 2]},
        "answers": said,
        "additional_answers": {"0": other, "1": other, "2": said},
    }


def _gsm(n: int, right: str) -> Row:
    return {"question": f"{text(n, 6)} {n} and {n + 1}?", "answer": f"{n} + 1 = {n + 1}\n#### {right}"}


def _longbench(n: int, right: str) -> Row:
    return {
        "input": text(n),
        "question": f"Question: {text(n, 3)}\nType:",
        "context": text(n, 20),
        "answers": [right or word(n)],
        "length": 20,
        "dataset": "trec",
        "language": "en",
        "all_classes": [right or word(n), word(n), word(n + 3)],
        "_id": str(n),
    }


def _winograd(n: int, right: str) -> Row:
    return {
        "sentence": f"The {word(n)} saw the {word(n + 1)} as _ was {word(n + 2)}.",
        "option1": word(n),
        "option2": word(n + 1),
        "answer": str(n % 2 + 1),
    }


def _wsc273(n: int, right: str) -> Row:
    start = f"The {word(n)} met the {word(n + 1)} because "
    return {
        "text": f"{start}it was {word(n + 2)}.",
        "pronoun": "it",
        "pronoun_loc": len(start),
        "quote": "",
        "quote_loc": 0,
        "options": [f"The {word(n)}", f"The {word(n + 1)}"],
        "label": n % 2,
        "source": "x",
    }


def _race(n: int, right: str) -> Row:
    problems = [
        {"question": f"{text(n, 3)}  _  .", "answer": "A", "options": options(n)},
        {"question": text(n + 1, 4), "answer": LETTERS[n % 4], "options": options(n + 1)},
    ]
    return {"article": text(n, 12), "problems": repr(problems)}


def _truth(n: int, right: str) -> Row:
    return {
        "question": f"Is {word(n)} {word(n + 1)}?",
        "mc1_targets": {"choices": options(n, 3), "labels": [1, 0, 0]},
        "mc2_targets": {"choices": options(n, 4), "labels": [1, 1, 0, 0]},
    }


def _truth_gen(n: int, right: str) -> Row:
    return {
        "type": "x",
        "category": "x",
        "question": f"Is {word(n)} {word(n + 1)}?",
        "best_answer": right or word(n),
        "correct_answers": [right or word(n), text(n)],
        "incorrect_answers": [text(n + 2), word(n + 5)],
        "source": "x",
    }


def _ifeval(n: int, right: str) -> Row:
    kinds: list[tuple[str, Row]] = [
        ("punctuation:no_comma", {}),
        ("length_constraints:number_words", {"relation": "less than", "num_words": 30}),
        ("keywords:forbidden_words", {"forbidden_words": [word(n)]}),
        ("detectable_format:number_highlighted_sections", {"num_highlights": 2}),
    ]
    chosen = [kinds[n % 4], kinds[(n + 1) % 4]]
    keys = ("relation", "num_words", "forbidden_words", "num_highlights", "num_bullets", "capital_frequency")
    return {
        "key": n,
        "prompt": f"Write about {text(n, 6)}",
        "instruction_id_list": [name for name, _ in chosen],
        "kwargs": [{key: values.get(key) for key in keys} for _, values in chosen],
    }


def _gpqa(n: int, right: str) -> Row:
    wrong = {f"Incorrect Answer {place}": f"{word(n + place)} {place}" for place in (1, 2, 3)}
    return {"Question": text(n), "Correct Answer": f"{word(n)} yes"} | wrong


def _pro(n: int, right: str) -> Row:
    return {
        "question_id": n,
        "question": text(n),
        "options": options(n, 10 if n % 2 else 4),
        "answer": LETTERS[n % 4],
        "answer_index": n % 4,
        "cot_content": f"A: Let's think step by step. The answer is ({LETTERS[n % 4]}).",
        "category": "math" if n == 3 else "law",
        "src": "x",
    }


def _mathqa(n: int, right: str) -> Row:
    said = " , ".join(f"{letter} ) {n + place}" for place, letter in enumerate("abcde"))
    return {"Problem": text(n), "Rationale": "x", "options": said, "correct": "abcde"[n % 5], "category": "gain"}


def _multirc(n: int, right: str) -> Row:
    return {
        "paragraph": text(n, 9),
        "question": text(n, 3),
        "answer": word(n),
        "label": n % 2,
        "idx": {"paragraph": n, "question": n, "answer": n},
    }


def _record(n: int, right: str) -> Row:
    names = [word(n), word(n + 1), word(n + 2), word(n)]
    return {
        "passage": f"{text(n, 8)}\n@highlight\n{text(n + 1)}",
        "query": f"It was @placeholder that {text(n, 3)}",
        "entities": names,
        "answers": [word(n + n % 3)],
        "idx": {"passage": n, "query": n},
    }


def _wsc(n: int, right: str) -> Row:
    return {
        "text": f"{word(n).title()} saw {word(n + 1)} when he was {word(n)} .",
        "span1_index": 0,
        "span2_index": 4,
        "span1_text": word(n).title(),
        "span2_text": "he",
        "idx": n,
        "label": n % 2,
    }


def _wic(n: int, right: str) -> Row:
    sides = {"sentence1": text(n), "sentence2": text(n + 1), "start1": 0, "start2": 0, "end1": 4, "end2": 4}
    return sides | {"word": word(n), "idx": n, "label": n % 2}


def _copa(n: int, right: str) -> Row:
    return {
        "premise": text(n),
        "choice1": text(n + 1).title(),
        "choice2": text(n + 2).title(),
        "question": "cause" if n % 2 else "effect",
        "idx": n,
        "label": n % 2,
    }


def _hellaswag(n: int, right: str) -> Row:
    return {
        "ind": n,
        "activity_label": word(n),
        "ctx_a": text(n),
        "ctx_b": f"{word(n)} [title] goes",
        "ctx": text(n),
        "endings": options(n),
        "source_id": "x",
        "split": "val",
        "split_type": "zeroshot",
        "label": str(n % 4),
    }


def _medqa(n: int, right: str) -> Row:
    endings = {f"ending{place}": one for place, one in enumerate(options(n))}
    return {"id": str(n), "sent1": text(n), "sent2": "", "label": n % 4} | endings


def _medmcqa(n: int, right: str) -> Row:
    answers = dict(zip(("opa", "opb", "opc", "opd"), options(n), strict=True))
    return {"id": str(n), "question": text(n), "cop": n % 4, "choice_type": "single", "exp": None} | answers


def _belebele(n: int, right: str) -> Row:
    answers = {f"mc_answer{place + 1}": one for place, one in enumerate(options(n))}
    return {"flores_passage": text(n, 8), "question": text(n, 3), "correct_answer_num": str(n % 4 + 1)} | answers


def _pubmed(n: int, right: str) -> Row:
    return {
        "QUESTION": text(n, 4),
        "CONTEXTS": [text(n, 6), text(n + 1, 6)],
        "final_decision": ("yes", "no", "maybe")[n % 3],
    }


def _headqa(n: int, right: str) -> Row:
    answers = [{"aid": place + 1, "atext": one} for place, one in enumerate(options(n))]
    return {"name": "x", "year": "2013", "qid": n, "qtext": text(n), "ra": n % 4 + 1, "answers": answers}


def _xwinograd(n: int, right: str) -> Row:
    return _winograd(n, right)


def _qa4mre(n: int, right: str) -> Row:
    return {
        "document_str": text(n, 12),
        "question_str": text(n, 4),
        "correct_answer_id": str(n % 5 + 1),
        "answer_options": {"answer_id": list("12345"), "answer_str": options(n, 5)},
    }


def _agieval(n: int, right: str) -> Row:
    return {
        "query": f"{text(n, 8)} A:",
        "choices": [f"({letter}){one}" for letter, one in zip("ABCD", options(n), strict=True)],
        "gold": [n % 4],
    }


def _mutual(n: int, right: str) -> Row:
    return {
        "id": str(n),
        "article": f"m : {text(n)} f : {text(n + 1)} ?",
        "options": options(n),
        "answers": LETTERS[n % 4],
    }


def _sentence_pair(n: int, right: str) -> Row:
    return {"sentence_good": text(n), "sentence_bad": text(n + 2), "field": "syntax", "UID": "x"}


def _toxigen(n: int, right: str) -> Row:
    return {"text": text(n), "target_group": "x", "toxicity_ai": float(n % 5 + 1), "toxicity_human": float(n % 3 + 1)}


def _mgsm(n: int, right: str) -> Row:
    return {
        "question": f"{text(n, 6)} {n}?",
        "answer": None,
        "answer_number": int(right) if right.isdecimal() else 10 + n,
        "equation_solution": None,
    }


def _trivia(n: int, right: str) -> Row:
    aliases = [right, word(n + 1)] if n % 2 else [right]
    return {"question": text(n, 4), "question_id": str(n), "answer": {"aliases": aliases, "value": aliases[0]}}


def _eq(n: int, right: str) -> Row:
    scores = {f"emotion{place}": word(place) for place in range(1, 5)} | {
        f"emotion{place}_score": place for place in range(1, 5)
    }
    return {"prompt": text(n, 12), "reference_answer": repr(scores), "reference_answer_fullscale": repr(scores)}


def _simple(question: str, answer: str) -> MakeRow:
    return lambda n, right: {question: text(n, 6), answer: right or word(n)}


_GLUE: dict[str, MakeRow] = {
    "sst2": lambda n, right: {"sentence": text(n), "label": n % 2, "idx": n},
    "cola": lambda n, right: {"sentence": text(n), "label": n % 2, "idx": n},
    "mrpc": _pair("sentence1", "sentence2"),
    "rte": _pair("sentence1", "sentence2"),
    "wnli": _pair("sentence1", "sentence2"),
    "qqp": _pair("question1", "question2"),
    "qnli": _pair("question", "sentence"),
    "mnli": _pair("premise", "hypothesis", 3),
}
_SUPER: dict[str, MakeRow] = {
    "boolq": _pair("passage", "question"),
    "cb": _pair("premise", "hypothesis", 3),
    "rte": _pair("premise", "hypothesis"),
    "copa": _copa,
    "multirc": _multirc,
    "record": _record,
    "wic": _wic,
    "wsc.fixed": _wsc,
}
# By `dataset_path` and `dataset_name`.
LAYOUTS: Mapping[tuple[str, str | None], MakeRow] = {
    **{("nyu-mll/glue", name): make for name, make in _GLUE.items()},
    **{("aps/super_glue", name): make for name, make in _SUPER.items()},
    ("allenai/ai2_arc", "ARC-Easy"): lambda n, right: {
        "id": str(n),
        "question": text(n),
        "choices": listed(n),
        "answerKey": LETTERS[n % 4],
    },
    ("allenai/ai2_arc", "ARC-Challenge"): lambda n, right: {
        "id": str(n),
        "question": text(n, 7),
        "answerKey": str(n % 3 + 1),
        "choices": listed(n, 3, "123"),
    },
    ("Rowan/hellaswag", None): _hellaswag,
    ("baber/piqa", None): lambda n, right: {"goal": text(n), "sol1": text(n + 1), "sol2": text(n + 2), "label": n % 2},
    ("allenai/winogrande", "winogrande_xl"): _winograd,
    ("Muennighoff/xwinograd", "en"): _xwinograd,
    ("allenai/openbookqa", "main"): lambda n, right: {
        "id": str(n),
        "question_stem": text(n),
        "choices": listed(n),
        "answerKey": LETTERS[n % 4],
    },
    ("allenai/sciq", None): lambda n, right: {
        "question": text(n, 4),
        "support": text(n, 8),
        "correct_answer": word(n),
        "distractor1": word(n + 1),
        "distractor2": word(n + 2),
        "distractor3": word(n + 3),
    },
    ("lighteval/siqa", None): lambda n, right: {
        "context": text(n),
        "question": text(n, 3),
        "label": str(n % 3 + 1),
        **dict(zip(("answerA", "answerB", "answerC"), options(n), strict=False)),
    },
    ("tau/commonsense_qa", None): lambda n, right: {
        "id": str(n),
        "question": text(n),
        "question_concept": word(n),
        "choices": listed(n, 5),
        "answerKey": LETTERS[n % 5],
    },
    ("cais/mmlu", "anatomy"): lambda n, right: {
        "question": text(n),
        "subject": "anatomy",
        "choices": options(n),
        "answer": n % 4,
    },
    ("cais/mmlu", "virology"): lambda n, right: {
        "question": text(n, 7),
        "subject": "x",
        "choices": options(n + 3),
        "answer": n % 4,
    },
    ("truthfulqa/truthful_qa", "multiple_choice"): _truth,
    ("truthfulqa/truthful_qa", "generation"): _truth_gen,
    ("EleutherAI/logiqa", "logiqa"): lambda n, right: {
        "label": "abcd"[n % 4],
        "context": text(n, 7),
        "question": text(n, 4),
        "options": options(n),
    },
    ("EleutherAI/race", "high"): _race,
    ("allenai/swag", "regular"): lambda n, right: {
        "startphrase": text(n),
        "label": n % 4,
        **{f"ending{place}": one for place, one in enumerate(options(n))},
    },
    ("EleutherAI/headqa", "en"): _headqa,
    ("regisss/math_qa", None): _mathqa,
    ("nyu-mll/blimp", "adjunct_island"): _sentence_pair,
    ("EleutherAI/lambada_openai", "default"): lambda n, right: {"text": text(n, 9).rstrip(".")},
    ("EleutherAI/wikitext_document_level", "wikitext-2-raw-v1"): lambda n, right: {
        "page": f" = {word(n)} = \n {text(n, 30)} @-@ x\n"
    },
    ("NeelNanda/pile-10k", None): lambda n, right: {"text": text(n, 25), "meta": {"pile_set_name": "x"}},
    ("bigbio/pubmed_qa", "pubmed_qa_labeled_fold0_source"): _pubmed,
    ("openlifescienceai/medmcqa", None): _medmcqa,
    ("GBaker/MedQA-USMLE-4-options-hf", None): _medqa,
    ("facebook/xnli", "en"): _pair("premise", "hypothesis", 3),
    ("cambridgeltl/xcopa", "it"): _copa,
    ("juletxara/xstory_cloze", "en"): _story,
    ("google-research-datasets/paws-x", "en"): _pair("sentence1", "sentence2"),
    ("EleutherAI/asdiv", None): lambda n, right: {
        "body": text(n),
        "question": text(n, 3),
        "answer": f"{n} ({word(n)})",
    },
    ("facebook/anli", None): _pair("premise", "hypothesis", 3),
    ("EleutherAI/hendrycks_ethics", "commonsense"): lambda n, right: {
        "label": n % 2,
        "input": text(n),
        "is_short": True,
    },
    ("jannalu/crows_pairs_multilingual", "english"): lambda n, right: {
        "sent_more": text(n),
        "sent_less": text(n + 1),
        "bias_type": "age",
    },
    ("skg/toxigen-data", "annotated"): _toxigen,
    ("facebook/belebele", "eng_Latn"): _belebele,
    ("lighteval/winograd_wsc", "wsc273"): _wsc273,
    ("Idavidrein/gpqa", "gpqa_main"): _gpqa,
    ("haonan-li/cmmlu", "anatomy"): _lettered("Question", "Answer"),
    ("ceval/ceval-exam", "law"): _lettered(),
    ("HAERAE-HUB/KMMLU", "Law"): lambda n, right: _lettered()(n, right) | {"answer": n % 4 + 1},
    ("hails/agieval-sat-en", None): _agieval,
    ("community-datasets/qa4mre", "2011.main.EN"): _qa4mre,
    ("EleutherAI/mutual", "mutual"): _mutual,
    ("CogComp/mc_taco", None): lambda n, right: {
        "sentence": text(n),
        "question": text(n, 3),
        "answer": word(n),
        "label": n % 2,
    },
    ("oskarvanderwal/simple-cooccurrence-bias", None): lambda n, right: {"sentence": text(n), "all": 0},
    ("stanfordnlp/web_questions", None): lambda n, right: {
        "url": "x",
        "question": text(n, 4),
        "answers": [word(n), f"{word(n)} {word(1)}", word(n + 2)],
    },
    # What the model writes:
    ("openai/gsm8k", "main"): _gsm,
    ("juletxara/mgsm", "en"): _mgsm,
    ("mandarjoshi/trivia_qa", "rc.nocontext"): _trivia,
    ("google-research-datasets/nq_open", None): lambda n, right: {"question": text(n, 4), "answer": [right, word(n)]},
    ("EleutherAI/drop", None): _drop,
    ("EleutherAI/coqa", None): _coqa,
    ("SaylorTwift/bbh", "boolean_expressions"): _simple("input", "target"),
    ("EleutherAI/hendrycks_math", "algebra"): _solution,
    ("google/IFEval", None): _ifeval,
    ("hazyresearch/based-squad", "default"): _squad_like,
    ("hazyresearch/based-swde-v2", "default"): _squad_like,
    ("hazyresearch/based-fda", "default"): _squad_like,
    ("Muennighoff/babi", None): lambda n, right: {
        "passage": f"{text(n, 6)}\n",
        "question": text(n, 3),
        "answer": right,
        "task": 1,
    },
    ("TIGER-Lab/MMLU-Pro", None): _pro,
    ("pbevan11/EQ-Bench", None): _eq,
    ("EleutherAI/unscramble", "mid_word_1_anagrams"): _simple("context", "completion"),
    ("EleutherAI/unscramble", "cycle_letters_in_word"): _simple("context", "completion"),
    ("wmt/wmt16", "ro-en"): lambda n, right: {"translation": {"ro": text(n), "en": right or text(n + 1)}},
    ("Xnhyacinth/LongBench", "trec"): _longbench,
    ("gneubig/aime-1983-2024", None): lambda n, right: {"ID": str(n), "Question": text(n, 6), "Answer": right or "7"},
    ("qintongli/GSM-Plus", None): lambda n, right: _gsm(n, right) | {"solution": f"#### {right}"},
    ("openai/openai_humaneval", None): lambda n, right: {"prompt": "def f():", "test": "", "entry_point": "f"},
    ("lighteval/squad_v2", None): lambda n, right: {
        "id": str(n),
        "title": "",
        "context": text(n),
        "question": text(n, 3),
        "answers": {"text": [word(n)], "answer_start": [0]},
    },
}
