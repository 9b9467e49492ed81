#!/usr/bin/env python3
"""The event loop: tasks, timers, TCP, UDP, unix sockets, subprocesses, signals, threads."""

import asyncio, os, signal


async def main():
    order = []

    async def later(n):
        await asyncio.sleep(n / 50)
        order.append(n)

    await asyncio.gather(*(later(n) for n in (3, 1, 2)))
    print(order)

    async def echo(reader, writer):
        while line := await reader.readline():
            writer.write(line.upper())
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]

    async def client(n):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"client {n}\n".encode() * 20)
        writer.write_eof()
        data = await reader.read()
        writer.close()
        return data.count(b"CLIENT")

    print(sum(await asyncio.gather(*(client(n) for n in range(100)))))
    server.close()
    unix = await asyncio.start_unix_server(echo, "socket")
    reader, writer = await asyncio.open_unix_connection("socket")
    writer.write(b"unix\n")
    print(await reader.readline())
    writer.close()
    unix.close()
    p = await asyncio.create_subprocess_exec(
        "sh", "-c", "cat; exit 5", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    print(await p.communicate(b"to a child"), p.returncode)
    print(await asyncio.gather(*((lambda n: run(n))(n) for n in range(10))))
    try:
        await asyncio.wait_for(asyncio.sleep(10), 0.02)
    except asyncio.TimeoutError:
        print("timed out")
    got = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, lambda: got.set_result("signal"))
    os.kill(os.getpid(), signal.SIGUSR1)
    print(await got)

    class Datagrams(asyncio.DatagramProtocol):
        def connection_made(self, transport):
            self.transport = transport

        def datagram_received(self, data, address):
            self.transport.sendto(data[::-1], address)

    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Datagrams, local_addr=("127.0.0.1", 0))
    reply = asyncio.get_running_loop().create_future()

    class Client(asyncio.DatagramProtocol):
        def datagram_received(self, data, address):
            reply.set_result(data)

    sender, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        Client, remote_addr=transport.get_extra_info("sockname")
    )
    sender.sendto(b"datagram")
    print(await reply)
    sender.close()
    transport.close()
    print(await asyncio.to_thread(sum, range(1000)))
    task = asyncio.create_task(asyncio.sleep(10))
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        print("cancelled")


async def run(n):
    p = await asyncio.create_subprocess_shell(f"exit {n}")
    return await p.wait()


asyncio.run(main())
