"""One mount for all tests of a process, and a desk that each finds as it was at the beginning."""

from collections.abc import Iterator

import pytest

from tests.conftest import IN_CI
from tests.integration.mount.mount_part import Desk, Ground, may_mount


@pytest.fixture(scope="session")
def _ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    if not may_mount():
        (pytest.fail if IN_CI else pytest.skip)("needs FUSE, to be mounted here: make test-deps (root)")
    ground = Ground(tmp_path_factory.mktemp("mount"))
    ground.up()
    try:
        with ground.mounted(ground.place):
            yield ground
    finally:
        ground.down()
        ground.place.rmdir()
        ground.place.parent.rmdir()


@pytest.fixture
def ground(_ground: Ground) -> Ground:
    for name, value in vars(Desk()).items():
        setattr(_ground.desk, name, value)
    return _ground
