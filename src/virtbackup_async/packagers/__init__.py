"""The formats of packages: how disk streams are written into a target and read back."""
