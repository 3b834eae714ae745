"""`s2v doctor`: what this machine offers, what is wrong, and what to do."""

from __future__ import annotations

from typing import Annotated

import typer

from s2v_cli.console import Console


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
) -> None:
    """Say what works here and what does not.

    Looks at versions, devices, codecs, the cache folder and the bundled weights. The exit status
    is 1 if something is broken that the preset mini needs.
    """
    import json

    from s2v_cli.diagnosis import diagnose

    console, found = Console(), diagnose()
    if as_json:
        console.result(json.dumps(found.as_json(), indent=2))
    else:
        devices, codecs, cache = found.devices, found.codecs, found.cache
        formats = ", ".join(codecs["libsndfile"])
        free = f"{cache['free_bytes'] / 1e9:.1f} GB free"
        lines = {
            **found.versions,
            "libsndfile": f"{found.versions['libsndfile']} ({formats})",
            "ffmpeg": codecs["ffmpeg"],
            "cpu": f"{devices['cpu_threads']} threads",
            "cuda": ", ".join(devices["cuda"]),
            "mps": "yes" if devices["mps"] else None,
            "cache": f"{cache['path']} ({'here' if cache['exists'] else 'not made yet'}, {free})",
            **{f"weights {name}": state for name, state in found.weights.items()},
        }
        for name, value in lines.items():
            console.result(f"{name}: {value or 'none'}")
        for problem in found.problems:
            console.result(f"{'PROBLEM' if problem.fatal else 'note'}: {problem.what}")
            console.result(f"  {problem.remedy}")
        console.result("mini works here." if found.healthy else "mini cannot work here.")
    if not found.healthy:
        raise typer.Exit(1)
