"""Starts Chromium in this network namespace, which holds nothing but a loopback of its own.

The listening sockets are made here and handed out over the control socket (fd 0): whoever accepts on them serves this
namespace, and nobody else can. Then the control socket becomes Chromium's debugging pipe, so that no port of the
browser is open to the pages it shows.
"""

import os
import socket
import sys

ports = int(sys.argv[1])
control = socket.socket(fileno=os.dup(0))
listeners = []
for at in range(ports):
    listener = socket.socket()
    listener.bind(("127.0.0.1", 8501 + at))
    listener.listen(128)
    listeners.append(listener)
socket.send_fds(control, [b"\n"], [listener.fileno() for listener in listeners])
for listener in listeners:
    listener.close()
control.close()

# Chromium reads commands on 3 and writes answers on 4.
os.dup2(0, 3)
os.dup2(0, 4)
null = os.open("/dev/null", os.O_RDWR)
os.dup2(null, 0)
os.dup2(null, 1)
os.execv(sys.argv[2], sys.argv[2:])
