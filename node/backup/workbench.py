"""The code of an agent that comes from elsewhere: whether it may run here. What is not accepted is never run."""

from dataclasses import dataclass
from pathlib import Path

from node.agent.error import NoProgram
from node.agent.load.source import load_source
from node.agent.program import AnyProgram, Programs, program_of
from node.backup.customs import Luggage
from node.backup.error import CodeDiffers
from node.backup.luggage import RUNS_ITS_SETTINGS

PROGRAMS = "agents"  # the folder, as `node.agent.load.loader.FOLDER`


@dataclass(frozen=True, slots=True)
class Code:
    """What it runs here. `how`: same, other or installed; `source`: what is to be installed for that."""

    code: AnyProgram
    how: str
    source: bytes | None = None


def code_of(luggage: Luggage, programs: Programs, home: Path | None, *, accept: bool) -> Code:
    """The code that an agent would run here.

    Args:
        luggage: its archive.
        programs: what there is to run.
        home: where programs are files; None if nowhere.
        accept: code that differs, comes with it, or stands in its settings, may run.

    Raises:
        CodeDiffers: it does, and is not accepted.
        NoProgram: there is none, or it cannot be used.
    """
    manifest, name = luggage.manifest, luggage.manifest.program
    if name in RUNS_ITS_SETTINGS and not accept:
        raise CodeDiffers(f"Its settings say what runs on this machine: {str(luggage.agent.section.config)[:300]}.")
    if name in programs:
        code = program_of(programs, name)
        if code.digest == manifest.code:
            return Code(code, "same")
        if not accept:
            raise CodeDiffers(
                f"{name!r} is {code.digest[:12]} (version {code.version}) here, and was {manifest.code[:12] or 'none'} "
                f"(version {manifest.code_version}) there."
            )
        return Code(code, "other")
    if luggage.program is None or home is None:
        raise NoProgram(f"This node has no program called {name!r}.")
    if not accept:
        raise CodeDiffers(f"This node has no program called {name!r}; there is one in the archive.")
    code = load_source(luggage.program, home / PROGRAMS / f"{name}.py", name)
    if code.digest != manifest.code:
        raise CodeDiffers("The program in the archive is not the one that the agent ran.")
    return Code(code, "installed", luggage.program)
