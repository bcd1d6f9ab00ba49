"""Files of priors on the command line: python -m diffusion_priors.checkpoints --help."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from diffusion_priors.runs.exit_codes import FAILED, REFUSED
from diffusion_priors.runs.printable import printable, show, without_secrets


def doctor(arguments: argparse.Namespace) -> int:
    """Say what a file is, and try it. 1 where something is wrong with it."""
    from diffusion_priors.checkpoints.doctor import examine, text

    found = examine(arguments.path, arguments.images, arguments.size)
    show(text(found))
    return FAILED if found.wrong else 0


def export(arguments: argparse.Namespace) -> int:
    """Write a prior as a pipeline of diffusers."""
    from pathlib import Path

    from diffusion_priors.checkpoints.diffusers_export import export_diffusers
    from diffusion_priors.conf.named import prior_from
    from diffusion_priors.diffusion.priors.hub import path_or_hub

    export_diffusers(prior_from(path_or_hub(arguments.path), {}), Path(arguments.folder))
    show(f"pipeline of diffusers: {arguments.folder}")
    return 0


def convert(arguments: argparse.Namespace) -> int:
    """Write the tensors of a pickle of EDM as safetensors."""
    from pathlib import Path

    from diffusion_priors.checkpoints.convert import convert as converted

    notes = converted(Path(arguments.path), Path(arguments.target))
    show(f"{arguments.target}: {', '.join(f'{key}={value}' for key, value in notes.items())}; none of the pickle's code was run")
    return 0


def pull(arguments: argparse.Namespace) -> int:
    """Fetch a prior's folder, or one file, from the hub; print where it is."""
    from diffusion_priors.diffusion.priors.hub import PUSHED, pull, pull_file

    name, file, revision, cache = arguments.name, arguments.file, arguments.revision, arguments.cache
    show(str(pull_file(name, file, revision, cache) if file else pull(name, PUSHED, revision, cache)))
    return 0


def push(arguments: argparse.Namespace) -> int:
    """Upload a prior's folder to the hub; print its address."""
    from pathlib import Path

    from diffusion_priors.diffusion.priors.hub import push

    show(push(Path(arguments.folder), arguments.name, arguments.public))
    return 0


def parser() -> argparse.ArgumentParser:
    main = argparse.ArgumentParser(prog="python -m diffusion_priors.checkpoints", description="Files of priors.")
    commands = main.add_subparsers(required=True, metavar="COMMAND")
    one = commands.add_parser("doctor", help="what a file is, and whether its settings are right")
    one.add_argument("path", help="a file or folder of weights, or owner/name on the hub")
    one.add_argument("--images", help="a folder of images like those it was trained on (default: the bundled faces)")
    one.add_argument("--size", nargs=2, type=int, metavar=("HEIGHT", "WIDTH"), help="where the file does not say")
    one.set_defaults(run=doctor)
    one = commands.add_parser("export", help="write a prior as a pipeline of diffusers")
    one.add_argument("path", help="a file or folder of weights, or owner/name on the hub")
    one.add_argument("folder", help="the folder to write")
    one.set_defaults(run=export)
    one = commands.add_parser("convert", help="the tensors of a pickle of EDM as safetensors; none of its code is run")
    one.add_argument("path", help="a .pkl of NVlabs/edm")
    one.add_argument("target", help="the .safetensors to write")
    one.set_defaults(run=convert)
    one = commands.add_parser("pull", help="fetch a prior, or one file, from the hub and print where it is")
    one.add_argument("name", help="owner/name")
    one.add_argument("file", nargs="?", help="a file of it (default: the whole prior)")
    one.add_argument("--revision", help="a branch, tag or commit")
    one.add_argument("--cache", help="a folder (default: the cache of huggingface_hub)")
    one.set_defaults(run=pull)
    one = commands.add_parser("push", help="upload the folder of a prior to the hub")
    one.add_argument("folder", help="what train.py or export wrote")
    one.add_argument("name", help="owner/name")
    one.add_argument("--public", action="store_true", help="for everybody to see (default: private)")
    one.set_defaults(run=push)
    return main


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code. What cannot be done is one line on standard error."""
    given = parser().parse_args(arguments)
    try:
        return given.run(given)
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {printable(without_secrets(str(error)))}", file=sys.stderr)
        return REFUSED


if __name__ == "__main__":
    sys.exit(main())
