"""`lt-nas`: what a command is called, and how it ends. What each does stands in `commands.py`.

This module imports nothing heavy, so that `lt-nas --help` answers at once. Exit codes: 0 done, 2 the input cannot be
used, 130 interrupted with the state saved.
"""

from __future__ import annotations

import difflib
import errno
import os
import shlex
import sys
import warnings
from collections.abc import Sequence
from typing import TextIO

from lt_nas_ext.errors import UserError

COMMANDS = {
    "search": "find a cell on labelled or unlabelled images: writes a run directory",
    "adapt": "a searched supernet on other, long-tailed images: ranks its sub-networks",
    "retrain": "train the network of a finished search, or one to compare it with",
    "baseline": "train ResNet-32, DARTS_V2, ... on the same images, to stand beside a search",
    "evaluate": "accuracy of a trained network on its test images, class by class",
    "predict": "what a trained network sees on images of yours, the likeliest classes of each",
    "export": "a trained network as one file: state dict, torch.export or ONNX",
    "report": "one table and one self-contained html page for any number of runs",
    "data check": "every bad file of a folder of images by name, and every one that is there twice",
    "data describe": "what a data set holds: classes, counts, imbalance ratio, groups; samples and views on a page",
    "reproduce digits": "SSF-NAS and DARTS on long-tailed digits beside two controls, five seeds",
    "reproduce imb": "a supernet adapted from balanced to long-tailed images by every strategy: cost, rankings",
    "reproduce losses": "every remedy for a long tail on long-tailed digits, one small network, five seeds",
    "reproduce table1": "DARTS, FairDARTS and SSF-NAS on long-tailed CIFAR-10 beside controls, as a queue of runs",
    "reproduce tabular": "small networks on balanced and long-tailed digits: is it the same ones that are good?",
    "reproduce verification": "DARTS over four label distributions, searched and trained: what a long tail costs",
    "reproduce hls": "DARTS + BBN and HLS on long-tailed CIFAR-10 beside DARTS and two remedies, as a queue of runs",
    "demo": "two searches on long-tailed digits, trained, compared and drawn, in minutes",
    "doctor": "what is installed, which kernels serve, and why the others do not",
}

EXAMPLES = """\
  lt-nas demo
  lt-nas search --method ssf-nas --data digits --imbalance exp --factor 0.1 --out runs/ssf
  lt-nas retrain --run runs/ssf --epochs 150
  lt-nas predict runs/ssf photo.jpg more/
  lt-nas report runs/ssf"""

INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code; `argv` is without the program's name."""
    words = list(sys.argv[1:] if argv is None else argv)
    if os.environ.get("WORLD_SIZE", "1") != "1":
        # A process that ends would fill the others' terminal with stack traces in C++, ahead of what we say.
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    if not words or words[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if words[0] == "--version":
        from lt_nas_ext import __version__

        print(f"lt-nas {__version__}")
        return 0
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        return _guarded(words)


def _guarded(words: Sequence[str]) -> int:
    try:
        return _run(*_command(words))
    except UserError as error:
        print(f"lt-nas: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("lt-nas: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # `lt-nas … | head`: nobody reads on, and that is no error
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise
        where = f" {error.filename}" if error.filename else ""
        print(f"lt-nas: error: cannot write{where}: {error.strerror}; what was saved before is whole", file=sys.stderr)
        return 2


def usage() -> str:
    """What `lt-nas --help` prints."""
    width = max(map(len, COMMANDS)) + 2
    lines = [f"  {name:<{width}}{meaning}" for name, meaning in COMMANDS.items()]
    return "\n".join(
        [
            "usage: lt-nas COMMAND [OPTIONS]",
            "",
            "Neural architecture search on long-tailed images.",
            "",
            *lines,
            "",
            "lt-nas COMMAND --help shows every option with its default. Examples:",
            EXAMPLES,
        ]
    )


def _command(words: Sequence[str]) -> tuple[str, list[str]]:
    for length in (2, 1):
        name = " ".join(words[:length])
        if name in COMMANDS:
            return name, list(words[length:])
    group = [name for name in COMMANDS if name.startswith(f"{words[0]} ")]
    if group:
        raise UserError(f"command: got {' '.join(words[:2])!r}; wanted {' or '.join(map(repr, group))}")
    close = difflib.get_close_matches(words[0], COMMANDS, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(COMMANDS)}"
    raise UserError(f"command: got {words[0]!r}; {hint}")


def _run(name: str, words: list[str]) -> int:
    try:
        import tyro  # noqa: F401
    except ImportError:
        raise UserError("the command line needs the package tyro, which is not installed: pip install tyro") from None
    from lt_nas_ext import commands
    from lt_nas_ext.engine import Interrupted
    from lt_nas_ext.engine.processes import asked

    try:
        commands.run(name, words)
    except Interrupted as stopped:
        if asked().rank:  # the first process says it
            return INTERRUPTED
        print(f"lt-nas: {stopped}", file=sys.stderr)
        if stopped.out is not None:
            again = [_program(), *name.split(), *words]
            if name in ("search", "adapt", "retrain", "baseline") and "--resume" not in words:
                again.append("--resume")
            print(
                f"continue with: {shlex.join(again).replace(shlex.quote(_program()), _program(), 1)}", file=sys.stderr
            )
        return INTERRUPTED
    except SystemExit as end:  # tyro has printed help, or what is wrong with a flag
        return end.code if isinstance(end.code, int) else 2
    return 0


def _program() -> str:
    if os.environ.get("WORLD_SIZE", "1") != "1":
        return f"torchrun --nproc-per-node={os.environ.get('LOCAL_WORLD_SIZE', os.environ['WORLD_SIZE'])} -m lt_nas_ext"
    return "python -m lt_nas_ext" if os.path.basename(sys.argv[0]) == "__main__.py" else "lt-nas"


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """A warning as one line for people: where in our source it was raised is no help to them."""
    print(f"lt-nas: warning: {message}", file=sys.stderr)
