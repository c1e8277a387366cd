"""The files of a repository: where they are, who uses them, which packs are pending deletion."""
