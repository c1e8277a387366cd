"""The client: exports read and written from asyncio."""
