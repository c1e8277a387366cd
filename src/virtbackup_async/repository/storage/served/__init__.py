"""A storage that another process serves over two pipes, mostly at the other end of ``ssh``."""
