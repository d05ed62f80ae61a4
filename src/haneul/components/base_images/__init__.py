"""Base images: what people's own images begin with, put together from Debian packages."""
