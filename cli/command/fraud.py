"""`vendo fraud prove`, `verify`: what shows to anybody that a seller's key does not open what it signed."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from cli.client import Client
from cli.option import HomeOption, JsonOption
from cli.output import ExitCode, Output
from core.error import InvalidInput

app = typer.Typer(no_args_is_help=True, help="Proofs that a seller was paid for a key that opens nothing.")


@app.command()
def prove(
    job: Annotated[str, typer.Argument(metavar="JOB", help="A job that ended with the fault `fraud`.")],
    home: HomeOption,
    json_mode: JsonOption = False,
) -> None:
    """Print the proof of a fraud. It discloses our key for this one job, which opens nothing else."""
    proof: dict[str, Any] = Client.open(home).get(f"/agents/node/compute/jobs/{quote(job, safe='')}/proof")
    Output(json_mode=json_mode).answer(proof, json.dumps(proof, indent=2))


@app.command()
def verify(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A proof, or a label that holds one; - reads stdin.")],
    home: HomeOption,
    json_mode: JsonOption = False,
) -> int:
    """Check a proof of fraud; 65 if it proves none. Needs no node and no network."""
    from dvm.fraud import MAX_PROOF_CHARS, read_any

    try:
        if str(file) == "-":
            text = sys.stdin.read(MAX_PROOF_CHARS + 1)
        else:
            with file.open(encoding="utf-8") as opened:
                text = opened.read(MAX_PROOF_CHARS + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{file} cannot be read as text.", remedy="Give a file that holds a proof.") from error
    finding = read_any(text)
    word = "Proven" if finding.proven else "Not proven"
    about = f" Seller {finding.seller}, result {finding.result_id}." if finding.seller else ""
    Output(json_mode=json_mode).answer(finding.to_dict(), f"{word}: {finding.reason}{about}")
    return ExitCode.OK if finding.proven else ExitCode.DATA
