"""The keys of an encrypted repository, and what is made with them: pure, no I/O.

Loaded only for a repository that is encrypted: ``cryptography`` is an extra, and takes a while.
"""
