"""Builds an image as the workflow does: `ensure.py NAME OPTIONS`; prints its folder in the cache.

OPTIONS is JSON: `cache`, and if they matter `build_folder`, `ca_bundle`, `package_index`,
`debian_mirror`, `containers`, `cuda` and `start`.
"""

import json
import sys
from pathlib import Path

from lockstep.errors import UserError
from lockstep.images import build, identity, settings


def main(name: str, options: dict[str, str]) -> Path:
    """Build it, or find it."""
    section = {
        "cache": options["cache"],
        "build_folder": options.get("build_folder"),
        "ca_bundle": options.get("ca_bundle"),
        "package_index": options.get("package_index"),
        "debian_mirror": options.get("debian_mirror"),
        "place": "hardlink",
    }
    recipe = identity.recipe(
        name,
        cuda=options.get("cuda", "cuda12"),
        start=options.get("start", "debian"),
        containers=Path(options.get("containers", identity.CONTAINERS)),
    )
    return build.ensure(recipe, settings.resolve(section))


if __name__ == "__main__":
    try:
        print(main(sys.argv[1], json.loads(sys.argv[2])))
    except UserError as error:
        sys.exit(f"lockstep: error: {error}")
