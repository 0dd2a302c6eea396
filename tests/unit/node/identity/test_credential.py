"""Secrets that systemd lends to a service: mode 0440 there, and only there."""

import pytest

from core.error import InvalidInput
from node.identity.passphrase import CREDENTIAL, LENT, read_file


def lent(folder, mode):
    path = folder / CREDENTIAL
    path.write_text("right\n")
    path.chmod(mode)
    return path


@pytest.mark.parametrize("mode", [0o400, 0o440, 0o600])
def test_a_lent_secret_is_taken_with_the_mode_that_systemd_gives_it(tmp_path, mode):
    assert read_file(lent(tmp_path, mode), environ={LENT: str(tmp_path)}) == "right"


@pytest.mark.parametrize("mode", [0o444, 0o460, 0o404])
def test_a_lent_secret_that_everybody_reads_or_others_write_is_refused(tmp_path, mode):
    with pytest.raises(InvalidInput, match="can be read by others"):
        read_file(lent(tmp_path, mode), environ={LENT: str(tmp_path)})


@pytest.mark.parametrize("folder", ["", "other", "."])
def test_elsewhere_the_group_may_not_read_it(tmp_path, folder):
    path, named = lent(tmp_path, 0o440), tmp_path / folder if folder else ""
    environ = {LENT: f"{named}"} if folder != "." else {}
    with pytest.raises(InvalidInput):
        read_file(path, environ=environ)
