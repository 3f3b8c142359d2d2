"""A first manifest from a folder of folders: every folder with recordings becomes an instrument."""
