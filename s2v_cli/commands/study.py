"""`s2v study`: ask people, with the two questions of the paper's user study."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from s2v_cli.commands.asking import have_weights
from s2v_cli.commands.reporting import Report
from s2v_cli.console import Console
from s2v_cli.options import DeviceChoice
from s2v_cli.training.evaluation.study_options import PartsChoice, StudyOptions

study = typer.Typer(
    rich_markup_mode=None,
    no_args_is_help=True,
    help="Ask people: write a blind page of questions, and score the answers.",
)

AsJson = Annotated[bool, typer.Option("--json", help="Print a JSON object.")]


@study.command()
def make(
    preset: Annotated[
        str,
        typer.Argument(
            metavar="PRESET", show_default=False, help="A name from 's2v presets', or a folder."
        ),
    ],
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA",
            show_default=False,
            help="A dataset of 's2v prepare', or what that takes.",
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FOLDER", help="For the page and its key.")
    ] = Path("study"),
    against: Annotated[
        str | None,
        typer.Option(
            metavar="PRESET",
            help="Compare with this preset on the same sounds. Default: the preset's own pictures "
            "of the sound's real picture.",
        ),
    ] = None,
    parts: Annotated[
        PartsChoice, typer.Option(help="Preference against another model, precision, or both.")
    ] = "both",
    questions: Annotated[int, typer.Option(metavar="N", help="Of each part.")] = 20,
    pictures: Annotated[
        int, typer.Option(metavar="N", help="By each model, in a question of preference.")
    ] = 2,
    distractors: Annotated[
        int,
        typer.Option(
            metavar="N", help="Pictures of other sounds, by either, in a question of preference."
        ),
    ] = 2,
    choices: Annotated[
        int, typer.Option(metavar="N", help="Pictures in a question of precision.")
    ] = 4,
    split: Annotated[
        str, typer.Option(metavar="NAME", help="Sounds of train, validation or test.")
    ] = "test",
    seed: Annotated[int, typer.Option(help="Of the sounds, the order and the pictures.")] = 0,
    size: Annotated[
        int, typer.Option(metavar="PIXELS", help="Side of the pictures at most.")
    ] = 256,
    title: Annotated[
        str, typer.Option(metavar="TEXT", help="Of the page.")
    ] = "Sounds and pictures",
    note: Annotated[
        str,
        typer.Option(metavar="TEXT", help="For participants, such as whom to send the answers to."),
    ] = "",
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace files that exist.")] = False,
    device: Annotated[DeviceChoice, typer.Option(help="Where to compute.")] = "auto",
    weights_dir: Annotated[
        Path | None,
        typer.Option("--weights-dir", metavar="FOLDER", help="Where published weights lie."),
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Download missing weights without asking.")
    ] = False,
    accept_licence: Annotated[
        bool,
        typer.Option("--accept-licence", help="Agree to a non-commercial licence of weights."),
    ] = False,
    as_json: AsJson = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No notes and no progress; errors stay.")
    ] = False,
) -> None:
    """Write a page of questions for participants, and its key, which stays with you.

    The page (study.html) is one file with its sounds and pictures in it. It runs in any browser,
    from a file too, and sends nothing: participants save their answers and hand you the file. The
    key (study.key.json) tells which picture is whose.
    """
    options = StudyOptions(
        parts, questions, pictures, distractors, choices, split, seed, size, title, note
    )
    with Console(quiet=quiet) as console:
        console.progress("Loading the preset")
        for name in filter(None, (preset, against)):
            have_weights(
                name,
                ("sound_encoder", "image_encoder", "generator"),
                console,
                weights_dir=weights_dir,
                accept_licence=accept_licence,
                yes=yes,
            )
        from s2v_cli.training.evaluation.study import make_study

        page, key = make_study(
            preset,
            data,
            out,
            options,
            Report(console),
            against=against,
            overwrite=force,
            note=console.note,
            device=device,
            weights_dir=weights_dir,
        )
        megabytes = page.stat().st_size / 1e6
        if as_json:
            found = {"page": str(page), "key": str(key), "megabytes": round(megabytes, 1)}
            console.result(json.dumps(found, indent=2))
            return
        console.result(str(page))
        console.result(str(key))
        console.note(f"Send {page.name} ({megabytes:.1f} MB) to participants; keep {key.name}.")


@study.command()
def score(
    key: Annotated[
        Path, typer.Argument(metavar="KEY", show_default=False, help="The study.key.json.")
    ],
    answers: Annotated[
        list[Path],
        typer.Argument(
            metavar="ANSWERS",
            show_default=False,
            help="Files that participants sent, or folders of them.",
        ),
    ],
    seed: Annotated[int, typer.Option(help="Of the intervals.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Score the answers of participants.

    Prints how often pictures of either model were chosen (preference), how often the picture of
    the sound was (precision), their 95% intervals over participants and questions, binomial tests
    against chance, and a row a question. Files that cannot be scored are listed.
    """
    from s2v_cli.training.evaluation.study_score import (
        find_answers,
        read_answers,
        read_key,
        report,
        score_study,
    )

    console = Console()
    found = read_key(key)
    results = score_study(found, read_answers(found, find_answers(answers)), seed)
    if as_json:
        console.result(json.dumps(results, indent=2, sort_keys=True))
        return
    for line in report(found, results):
        console.result(line)
