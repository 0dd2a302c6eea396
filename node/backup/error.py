"""What can go wrong with backups and with moving agents.

VendoError
├── BackupDamaged     backup.damaged    422  it is no backup, or not a whole one, or its bytes were changed
├── BackupUnsafe      backup.unsafe     422  it holds what no backup holds: odd paths, links, devices, bombs, doubles
├── BackupForged      backup.forged     422  its signature is not that of the node whose keys are in it
├── BackupNewer       backup.newer      422  a newer vendo made it
├── BackupTarget      backup.target     409  what is to be made is there already
├── BackupRoom        backup.room       507  there is not enough room on the disk
├── BackupMoved       backup.moved      409  a file changed while it was read
├── CodeDiffers       agent.code_differs   409  an agent's program here is not the one that it had
└── MountMissing      agent.mount_missing  409  an agent had services that this node does not have
"""

from core.error import Conflict, Unavailable, VendoError


class BackupDamaged(VendoError):
    """This is not a whole backup."""

    code = "backup.damaged"
    status = 422
    remedy = "Copy it again from where it was made, or use an older one."


class BackupUnsafe(VendoError):
    """This archive holds what no backup of vendo holds."""

    code = "backup.unsafe"
    status = 422
    remedy = "Do not use it; find out where it comes from."


class BackupForged(VendoError):
    """The backup is not signed by the node whose keys are in it."""

    code = "backup.forged"
    status = 422
    remedy = "Do not use it; somebody has changed it."


class BackupNewer(VendoError):
    """A newer version of vendo made this."""

    code = "backup.newer"
    status = 422
    remedy = "Install that version of vendo, or a newer one."


class BackupTarget(Conflict):
    """What is to be restored is there already."""

    code = "backup.target"
    remedy = "Choose another place, or say --replace: what is there is then kept beside it."


class BackupRoom(Unavailable):
    """There is not enough room on the disk."""

    code = "backup.room"
    status = 507
    remedy = "Free some space, or choose another place."


class BackupMoved(Conflict):
    """A file changed while it was read."""

    code = "backup.moved"
    remedy = "Try again."


class CodeDiffers(Conflict):
    """The agent's program here is not the one that it had."""

    code = "agent.code_differs"
    remedy = "Look at what it would run here; if you want that, say --accept-code."


class MountMissing(Conflict):
    """The agent had services that this node does not have."""

    code = "agent.mount_missing"
    remedy = "Take a node of the same version, with the same services."
