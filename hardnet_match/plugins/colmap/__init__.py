"""COLMAP projects: their features exchanged for this package's, and read back; COLMAP's text formats.

| from | to | |
|---|---|---|
| project, features, matches | the same project with them | `project_with_features` |
| project | features, matches | `features_of_project` |
| features, matches | COLMAP's text files | `write_text_features`, `write_match_list` |
| COLMAP's text files | features, matches | `features_of_text`, `matches_of_list` |

A project's database is read and written as SQLite here, not through pycolmap: that would bring an older COLMAP's
database to its own form, which the older COLMAP could then not read.
"""

from __future__ import annotations

from .back import ImportSummary, features_of_project
from .project import ProjectSummary, project_with_features
from .text import features_of_text, matches_of_list, read_text_features, write_match_list, write_text_features

__all__ = [
    "ImportSummary",
    "ProjectSummary",
    "features_of_project",
    "features_of_text",
    "matches_of_list",
    "project_with_features",
    "read_text_features",
    "write_match_list",
    "write_text_features",
]
