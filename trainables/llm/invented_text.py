"""Invented tools and figures: the text the embedded LLM is made from. Never the shipped table."""

from __future__ import annotations

import random
from typing import Any

from trainables.data.registry import Tool
from trainables.models.features import INPUT_SIZES

ACTIONS = (
    "align analyze annotate archive audit balance blend cache calibrate check classify clean "
    "cluster compare compile compress convert count crop decode denoise deploy detect diff "
    "digest edit embed encode encrypt enrich estimate evaluate explain export extract filter "
    "find fit flag fold forecast format fuse generate grade group hash import index infer "
    "inspect join label locate map mask match measure merge mine mix model monitor normalize "
    "pack parse plan plot predict profile prune quantize query rank read recognize record "
    "reduce refine render repair replay resize route sample scan schedule score search segment "
    "select sign simulate smooth solve sort split stack summarize sync tag test tokenize track "
    "train transcribe transform translate trim tune update validate verify warp watch write"
).split()
AGENTS = (
    "analyzer annotator builder captioner checker classifier cleaner compressor converter counter "
    "decoder detector editor encoder engine estimator explorer extractor filter finder generator "
    "grader helper indexer inspector keeper labeler linker loader mapper matcher maker miner "
    "mixer monitor optimizer parser planner predictor profiler ranker reader recognizer recorder "
    "renderer reporter resolver router runner sampler scanner scheduler scorer searcher segmenter "
    "selector sender service shaper simulator solver sorter splitter summarizer tagger tester "
    "tokenizer tool tracker trainer transcriber translator tuner validator viewer watcher writer"
).split()
THINGS = (
    "account address alarm album animal answer archive article audio badge barcode batch bill "
    "binary book box bridge bug building cache calendar call camera car cell chart chat city "
    "claim clip cloud code color comment contract crop curve data date defect depth design "
    "device diagram dialog disk document dose drawing drug edge email energy entity error event "
    "face factory field file film flight flow font form forum frame fraud game gene gesture "
    "goal grammar graph grid hand heart house image invoice item job journal keyword lab "
    "language layout leaf lesson letter license light line link list log logo map market "
    "melody menu mesh message meter model molecule motion movie music name network news noise "
    "note number object order organ page paper parcel part patch path patient payment person "
    "phone photo piano pixel plan plant plate point policy pose post price product protein "
    "question queue radar rain receipt recipe record region report request resume review road "
    "robot room route rule safety sales scene schema science score screen seat seed sensor "
    "sentence sequence shape ship signal site skin sky slide song sound source speech sport "
    "stock store story street student style subtitle survey symptom table tax team terrain "
    "test text theme thread ticket tissue title tone topic traffic train tree tumor tweet user "
    "vehicle vessel video view vision voice volume water wave weather web word"
).split()
QUALITIES = (
    "large short noisy old new raw dense sparse long daily public private medical legal live "
    "recorded scanned colored blurred handwritten printed labeled random stored missing"
).split()
MEANS = (
    "a language model", "a vision transformer", "a neural network", "a decision tree",
    "a rule engine", "a search index", "a diffusion model", "a speech model", "a graph model",
    "optical character recognition", "a small classifier", "a large encoder", "signal processing",
    "a sequence model",
)  # fmt: skip
PURPOSES = (
    "and returns a score for each",
    "and writes a report",
    "and keeps the order",
    "with time stamps",
    "in one sentence per part",
    "from a comment or a signature",
    "and returns their bounding boxes",
    "to one of a thousand categories",
    "for every page of a file",
    "and removes what is not needed",
)
SYLLABLES = (
    "ba be bo ca ce co da de do fa fi go ha hi ka ki lo lu ma mi mo na no pa pi ra ri".split()
)
SYLLABLES += "ro sa si so ta ti to va ve vi xa za zo en or an el us ix ar um".split()


def _syllables(rng: random.Random) -> str:
    return "".join(rng.choice(SYLLABLES) for _ in range(rng.randint(2, 4)))


def tool_name(rng: random.Random) -> str:
    """Two or three words, now and then a made-up one, in one of the usual spellings."""
    first = rng.choice(THINGS) if rng.random() < 0.6 else rng.choice(ACTIONS)
    last = rng.choice(AGENTS) if rng.random() < 0.6 else rng.choice(THINGS)
    words = [first, last]
    if rng.random() < 0.15:
        words[rng.randrange(2)] = _syllables(rng)
    if rng.random() < 0.1:
        words.insert(1, rng.choice(THINGS))
    separator = rng.choices(["_", "-", " "], [0.8, 0.15, 0.05])[0]
    if rng.random() < 0.05:
        return words[0]
    return separator.join(words)


def tool(rng: random.Random) -> Tool:
    """An invented tool with a description that has to do with its name."""
    name = tool_name(rng)
    verb = rng.choice(ACTIONS)
    thing = name.replace("-", " ").replace("_", " ").split()[0]
    text = f"{verb.capitalize()}s {rng.choice(('the', 'each', 'a', 'all'))} "
    if rng.random() < 0.6:
        text += rng.choice(QUALITIES) + " "
    text += thing
    if rng.random() < 0.5:
        text += f" of a {rng.choice(THINGS)}"
    if rng.random() < 0.6:
        text += f" with {rng.choice(MEANS)}"
    if rng.random() < 0.5:
        text += f" {rng.choice(PURPOSES)}"
    return Tool(name, text + ".")


def _amount(rng: random.Random, top: int) -> float:
    """Half powers of two, else any whole number; small ones are as frequent as large ones."""
    if rng.random() < 0.5:
        return float(2 ** rng.randint(0, top.bit_length() - 1))
    value = round(2 ** rng.uniform(0, top.bit_length() - 1))
    return value + 0.5 if rng.random() < 0.04 else float(value)


def _share(rng: random.Random) -> float:
    return float(rng.choice((rng.randint(1, 20) * 5, rng.randint(1, 10) * 10, rng.randint(1, 100))))


def figures(rng: random.Random) -> dict[str, Any]:
    """Six independent figures over the ranges that occur in practice."""
    return {
        "input_size": rng.choice(INPUT_SIZES),
        "cpu_core": float(int(_amount(rng, 128))),
        "cpu_mem_gb": _amount(rng, 512),
        "gpu_sm": _share(rng),
        "gpu_mem_gb": _amount(rng, 96),
        "latency_ms": float(f"{10 ** rng.uniform(0.3, 4.8):.1e}"),
    }
