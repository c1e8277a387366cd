"""The client: reads and writes exports over asyncio connections."""
