"""What the parts of a crate's description share: the crate, and ways to add to it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rocrate.model import ContextEntity, Dataset, File
from rocrate.model.entity import Entity
from rocrate.rocrate import ROCrate

from lockstep.archive import layout, manifest, people
from lockstep.archive.story import Story
from lockstep.study import Study


@dataclass(frozen=True, kw_only=True)
class Making:
    """What the parts of a description share."""

    crate: ROCrate
    study: Study
    trees: manifest.Trees
    story: Story
    about: people.About

    @property
    def entries(self) -> Mapping[str, Mapping[str, Any]]:
        """Size and hash of every file in the archive but the description and the manifest."""
        return self.trees.entries

    def add(self, identifier: str, kind: str, /, **properties: Any) -> Entity:
        """Add an entity that is no file."""
        fields = {"@type": kind, **properties}
        return self.crate.add(ContextEntity(self.crate, identifier, properties=fields))

    def file(self, path: str, /, **properties: Any) -> Entity:
        """Add a file of the archive."""
        fields = {
            "encodingFormat": layout.encoding(path),
            "contentSize": str(self.entries[path]["bytes"]) if path in self.entries else None,
            "sha256": self.entries[path]["sha256"] if path in self.entries else None,
            **properties,
        }
        known = {key: value for key, value in fields.items() if value is not None}
        return self.crate.add(File(self.crate, dest_path=path, properties=known))

    def folder(self, path: str, /, **properties: Any) -> Entity:
        """Add a folder of the archive, with one hash over all that is below it."""
        fields = {"sha256": self.trees.digest(path), **properties}
        return self.crate.add(Dataset(self.crate, dest_path=path, properties=fields))

    def has(self, name: str) -> bool:
        """Whether the archive holds a file, or anything below a folder."""
        if name.endswith("/"):
            return bool(self.trees.below(name))
        return name in self.entries
