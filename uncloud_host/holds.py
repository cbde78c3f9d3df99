"""Which absences are too many at once to be believed: somebody's `etcdctl del --prefix`, or an etcd without its data.

Pure. A VM runs on for a day too long without harm; three hundred that are stopped by mistake are an outage.
"""

from collections import Counter
from collections.abc import Collection, Mapping

from uncloud_host.facts import Doubt

TOGETHER = 2  # of this host's running VMs in one revision: nobody deletes two VMs in one transaction by hand
FEW, SHARE = 3, 1 / 3  # at one list: more than this many, and more than this share of those that run here


def deleted_together(deleted: Mapping[str, int], running: Collection[str]) -> dict[str, Doubt]:
    """Doubt deletions of running VMs, told with their revisions, if one revision has several of them."""
    here = {uuid: revision for uuid, revision in deleted.items() if uuid in running}
    count = Counter(here.values())
    return {
        uuid: Doubt(f"{count[revision]} VMs that run here were deleted from etcd in one revision")
        for uuid, revision in here.items()
        if count[revision] >= TOGETHER
    }


def missing_at_once(missing: Collection[str], running: Collection[str]) -> dict[str, Doubt]:
    """Doubt that so many entries of running VMs, missing when etcd was listed anew, were all deleted on purpose."""
    if len(missing) <= FEW or len(missing) <= SHARE * len(running):
        return {}
    doubt = Doubt(f"etcd was read anew and {len(missing)} of the {len(running)} VMs that run here have no entry there")
    return dict.fromkeys(missing, doubt)
