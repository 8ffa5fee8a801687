"""Many idle sessions, for scripts/bench-idle.sh: a stand-in for a server that has room for them, and their client.

    idle.py serve PORT     greets sessions of user "idle" itself and passes all others on to the server on PORT;
                           prints its own port
    idle.py hold PORT N    opens N sessions of user "idle" on PORT, prints "held", and ends with its standard input
"""

import asyncio
import resource
import struct
import sys

AUTHENTICATION_OK = b"R" + struct.pack("!ii", 8, 0)
BACKEND_KEY_DATA = b"K" + struct.pack("!iii", 12, 1, 1)
READY_FOR_QUERY = b"Z" + struct.pack("!ic", 5, b"I")
PROTOCOL_3 = 196608
# Logins at a time: more would only wait in the system's queues.
LOGINS_MAX = 50


def allow_many_files():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def copy(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()


async def serve(server_port):
    async def session(reader, writer):
        length = await reader.readexactly(4)
        packet = await reader.readexactly(struct.unpack("!i", length)[0] - 4)
        if b"user\0idle\0" in packet:
            writer.write(AUTHENTICATION_OK + BACKEND_KEY_DATA + READY_FOR_QUERY)
            await reader.read()
            writer.close()
            return
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", server_port)
        server_writer.write(length + packet)
        await asyncio.gather(copy(reader, server_writer), copy(server_reader, writer), return_exceptions=True)

    server = await asyncio.start_server(session, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def hold(port, count):
    logins = asyncio.Semaphore(LOGINS_MAX)
    parameters = b"user\0idle\0database\0bench\0\0"
    startup = struct.pack("!ii", 8 + len(parameters), PROTOCOL_3) + parameters

    async def open_session():
        async with logins:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(startup)
            await reader.readuntil(READY_FOR_QUERY)
            return reader, writer

    sessions = await asyncio.gather(*(open_session() for _ in range(count)))
    print("held", len(sessions), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    allow_many_files()
    match sys.argv[1:]:
        case ["serve", port]:
            asyncio.run(serve(int(port)))
        case ["hold", port, count]:
            asyncio.run(hold(int(port), int(count)))
