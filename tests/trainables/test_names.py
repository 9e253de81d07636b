"""Names that people type: which are the same, which one was meant, in what two differ."""

from __future__ import annotations

import unicodedata

import pytest

from trainables.errors import did_you_mean
from trainables.names import comparable, difference, edits, nearest, visible

# What was typed, and what was meant.
NEAR = [
    ("num_trails", "num_trials"),
    ("modle", "model"),
    ("descripton", "description"),
    ("tpee", "tpe"),
    ("packd", "packed"),
    ("gpu_smm", "gpu_sm"),
    ("grep_log", "grep_logs"),
    ("mondya", "monday"),
    ("takn", "taken"),
    ("val_los", "val_loss"),
    ("valloss", "val_loss"),
    ("model.dropuot", "model.dropout"),
    ("speech_recognizer", "speech_recognition"),
    ("speech_recogniser", "speech_recognizer"),
    ("speech-recognition", "speech_recognition"),
    ("SpeechRecognition", "speech_recognition"),
    ("superresolution", "super_resolution"),
    ("image_classification", "image_classifier"),
    ("object_detection", "object_detector"),
    ("text_summarizer", "text_summarization"),
    ("document_scaner", "document_scanner"),
    ("video_captionning", "video_captioner"),
    ("code_gen", "code_generator"),
    ("sentiment_analyser", "sentiment_analyzer"),
    ("latency", "latency_ms"),
    ("latency (ms)", "latency_ms"),
    ("Latency_MS", "latency_ms"),
    ("cpu_cores", "cpu_core"),
    ("CPU Core", "cpu_core"),
    ("cpu_mem", "cpu_mem_gb"),
    ("cpu_memory_gb", "cpu_mem_gb"),
    ("inputsize", "input_size"),
    ("epochs", "num_epochs"),
    ("profiling", "profiling_data"),
    ("learing_rate", "learning_rate"),
    ("hyper", "hyperband"),
    ("medum", "medium"),
    ("lrage", "large"),
    ("zipfolder", "zip folder"),
    ("zip\u00a0folder", "zip folder"),
    ("gr\u0435p_logs", "grep_logs"),
    ("detecteur", "détecteur"),
    ("dÃ©tecteur", "détecteur"),
    ("\u2764", "\u2764\ufe0f"),
]
# Two tools that share letters, not a meaning.
FAR = [
    ("speech_recognition", "super_resolution"),
    ("speech_recognizer", "super_resolution"),
    ("speech_recognizer", "speaker_recognizer"),
    ("image_classification", "image_captioning"),
    ("image_classifier", "image_captioner"),
    ("image_segmentation", "image_generation"),
    ("image_captioning", "imagemagick"),
    ("text_generation", "text_classification"),
    ("music_generation", "text_generation"),
    ("audio_classification", "video_classification"),
    ("object_detection", "object_tracking"),
    ("anomaly_detection", "object_detection"),
    ("face_detection", "fraud_detection"),
    ("translation", "transcription"),
    ("translate", "transcribe"),
    ("depth_estimation", "pose_estimation"),
    ("keyword_extraction", "feature_extraction"),
    ("style_transfer", "file_transfer"),
    ("text_to_speech", "text_to_image"),
    ("image_to_text", "text_to_image"),
    ("video_captioner", "video_classifier"),
    ("document_scanner", "document_classifier"),
    ("code_generator", "code_reviewer"),
    ("tabular_regression", "logistic_regression"),
    ("grep_logs", "zip folder"),
    ("r", "grep_logs"),
    ("cpu_core", "cpu_mem_gb"),
    ("gpu_sm", "gpu_mem_gb"),
    ("batch_size", "input_size"),
    ("tpe", "gp"),
    ("small", "large"),
    ("monday", "friday"),
    ("\u8868", "\u753b\u50cf"),
]


@pytest.mark.parametrize(("name", "meant"), NEAR)
def test_a_mistyped_name_is_found(name: str, meant: str) -> None:
    others = [other for pair in FAR for other in pair if nearest(name, [other]) is None]
    assert nearest(name, [*others, meant]) == meant


@pytest.mark.parametrize(("name", "other"), FAR)
def test_another_tool_is_not_offered(name: str, other: str) -> None:
    assert nearest(name, [other]) is None
    assert nearest(other, [name]) is None
    assert did_you_mean(name, [other]) == ""


def test_of_several_the_nearest_is_offered() -> None:
    assert nearest("gpu_memgb", ["cpu_mem_gb", "gpu_mem_gb"]) == "gpu_mem_gb"
    assert nearest("num_epoch", ["epochs", "num_epochs"]) == "num_epochs"


def test_looking_among_many_names_is_quick() -> None:
    known = [f"tool_{i:05d}_of_a_long_list" for i in range(20_000)]
    assert nearest("x" * 90, known) is None
    assert nearest("y" * 100_000, known) is None


FORMS = ["détecteur", "Å", "한국어", "ガ", "ệ", "क़"]


@pytest.mark.parametrize("name", FORMS)
def test_a_name_is_the_same_in_every_canonical_form(name: str) -> None:
    for form in ("NFC", "NFD"):
        written = unicodedata.normalize(form, name)
        assert comparable(written) == comparable(f"\u00a0{name} ")
        assert difference(written, name) == ""


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("a", "A"),
        ("ﬁt", "fit"),
        ("zip folder", "zip\u00a0folder"),
        ("a\u200bb", "ab"),
        ("½", "1/2"),
    ],
)
def test_all_else_counts(name: str, other: str) -> None:
    assert comparable(name) != comparable(other)


@pytest.mark.parametrize(
    "name", ["a\u200bb", "a\u200db", "a\u200eb", "\ufeffab", "a\u00adb", "ab\ufe0f", "ab\U000e0041"]
)
def test_what_is_drawn_as_nothing_is_not_visible(name: str) -> None:
    assert visible(name) == "ab"


@pytest.mark.parametrize(
    ("name", "known", "said"),
    [
        ("gr\u0435p_logs", "grep_logs", "position 3 is U+0435 (CYRILLIC SMALL LETTER IE) here"),
        ("zip\u00a0folder", "zip folder", "position 4 is U+00A0 (NO-BREAK SPACE) here"),
        ("grep\u200b_logs", "grep_logs", "has U+200B (ZERO WIDTH SPACE) at position 5"),
        ("grep_logs", "grep_logs\u200e", "has U+200E (LEFT-TO-RIGHT MARK) at position 10"),
    ],
)
def test_names_that_look_alike_say_in_what_they_differ(name: str, known: str, said: str) -> None:
    assert said in did_you_mean(name, [known])


def test_of_plain_typos_nothing_more_is_said() -> None:
    assert did_you_mean("grep_log", ["grep_logs"]) == " (did you mean `grep_logs`?)"


@pytest.mark.parametrize(
    ("a", "b", "count"), [("", "", 0), ("ab", "ba", 1), ("abc", "ab", 1), ("kitten", "sitting", 3)]
)
def test_edits(a: str, b: str, count: int) -> None:
    assert edits(a, b) == edits(b, a) == count
    assert edits(a, b, most=count) == count
    assert count == 0 or edits(a, b, most=count - 1) > count - 1
