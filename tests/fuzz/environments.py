"""What the environment of a process may hold: another machine's, another tool's, another user's."""

from __future__ import annotations

import tempfile

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from tests.fuzz.pieces import WORDS, Case

UNSET = None
PLACES = [
    tempfile.gettempdir(),
    "/nowhere/at/all",
    "here",
    "/dev/null",
    "/proc",
    "/",
    "",
    "/" + "x" * 120,
    "~",
]
SWITCHES = ["0", "1", "true", "junk", "", "-1"]
VARIABLES: dict[str, list[str | None]] = {
    "RAY_ADDRESS": [
        *("auto", "local", " local ", "foo", "", " ", ":", "127.0.0.1:1", "127.0.0.1", "[::1]:1"),
        *("127.0.0.1:99999", "http://127.0.0.1:1", "ray://127.0.0.1:1", "h\u00f4te:6379", "a:b:c"),
    ],
    "RAY_AUTH_MODE": ["token", "disabled", "TOKEN", "none", ""],
    "RAY_AUTH_TOKEN": ["x", "", " "],
    "RAY_AUTH_TOKEN_PATH": PLACES,
    "RAY_TMPDIR": PLACES,
    "TMPDIR": PLACES,
    "HOME": [*PLACES, UNSET],
    "USER": ["", "jos\u00e9", UNSET],
    "LOGNAME": [UNSET],
    "LC_ALL": ["C", "POSIX", "C.UTF-8", "de_DE.ISO-8859-1", "junk"],
    "LANG": ["C", "junk", UNSET],
    "PYTHONUTF8": ["0", "1"],
    "PYTHONIOENCODING": ["ascii", "ascii:strict", "latin-1", "utf-8"],
    "PYTHONHASHSEED": ["0", "7"],
    "PYTHONWARNINGS": ["default", "ignore"],
    "COLUMNS": ["0", "1", "20", "40", "-3", "junk", "1000000"],
    "TERM": ["dumb", "junk", "", UNSET],
    "NO_COLOR": SWITCHES,
    "FORCE_COLOR": SWITCHES,
    "WANDB_RUN_ID": ["abc", ""],
    "WANDB_MODE": ["offline", "disabled", "shared", "junk", ""],
    "WANDB_DIR": PLACES,
    "WANDB_PROJECT": ["a/b", "x" * 300, ""],
    "WANDB_SERVICE": ["junk"],
    "HF_HOME": PLACES,
    "HF_HUB_CACHE": PLACES,
    "HF_HUB_OFFLINE": SWITCHES,
    "TRANSFORMERS_OFFLINE": SWITCHES,
    "TRANSFORMERS_VERBOSITY": ["debug", "junk"],
    "OMP_NUM_THREADS": ["0", "1", "-1", "junk", "99"],
    "CUDA_VISIBLE_DEVICES": ["", "0", "-1", "junk"],
    "MPLCONFIGDIR": PLACES,
    "XDG_CACHE_HOME": PLACES,
}


@st.composite
def environments(draw: DrawFn) -> Case:
    """A sweep that is all right, wherever one to four variables say something else."""
    names = st.lists(st.sampled_from(sorted(VARIABLES)), min_size=1, max_size=4, unique=True)
    environment: dict[str, str | None] = {}
    for name in draw(names):
        odd = st.sampled_from([word for word in WORDS if "\0" not in word and word.isascii()])
        environment[name] = draw(st.sampled_from(VARIABLES[name] * 4) | odd)
    environment = {
        name: value
        for name, value in environment.items()
        # Python itself does not start with others.
        if not name.startswith("PYTHON") or value in VARIABLES[name]
    }
    log = draw(st.sampled_from([[], [], ["--log_wandb"]]))
    return Case(["--config", "good.yaml", *log], environment=environment)
