"""The server: serves devices to any number of clients over asyncio connections."""
