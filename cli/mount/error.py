"""What can go wrong before a mount serves anything. What goes wrong later is an errno (`cli.mount.refusal`).

VendoError
└── MountImpossible   cli.mount_impossible   503
"""

from core.error import Unavailable


class MountImpossible(Unavailable):
    """The tree cannot be mounted here."""

    code = "cli.mount_impossible"
    remedy = "Install FUSE (Debian: apt-get install fuse3) and vendo with its extra: pip install 'vendo[mount]'."
