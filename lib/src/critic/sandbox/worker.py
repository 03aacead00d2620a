"""A single-use Streamlit server inside the sandbox.

Started ahead of time: imports what apps use, says that it is ready, waits for one job (a JSON line on the first
connection to the listening socket at fd 0), and serves the job's app on that same socket until it is killed. No path of
the host is writable here: the app's files come with the job and live on a small tmpfs.
"""

import base64
import json
import os
import resource
import select
import socket
import sys

os.umask(0o077)


def refuse_calls(filters):
    """Installs filters of system calls, once and for all; whether the kernel has them."""
    import ctypes

    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p)]

    prctl = ctypes.CDLL(None, use_errno=True).prctl
    no_new_privileges, set_seccomp, by_filter = 38, 22, 2
    # In pointers' width: what is variadic is not converted.
    words = [ctypes.c_ulong] * 3
    prctl.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p, *words[:2]]
    if prctl(no_new_privileges, 1, None, 0, 0) != 0:
        return False
    for text in filters.split(","):
        code = base64.b64decode(text)
        program = Program(len(code) // 8, code)
        if not code or prctl(set_seccomp, by_filter, ctypes.addressof(program), 0, 0) != 0:
            return False
    return True


# Before anything is imported that might start a thread, which would go without.
seccomp = refuse_calls(sys.argv[3])

import altair  # noqa: E402, F401
import numpy  # noqa: E402, F401
import pandas  # noqa: E402, F401
import pyarrow  # noqa: E402, F401
import streamlit  # noqa: E402
import streamlit.runtime.agent  # noqa: E402, F401
import uvicorn  # noqa: E402
from streamlit.starlette import App  # noqa: E402
from streamlit.web import bootstrap  # noqa: E402

bootstrap.load_config_options(
    {
        "server.enableAgentApi": True,
        "server.agentWaitTimeout": int(sys.argv[1]),
        "server.agentPreviewRows": 5,
        "server.headless": True,
        # Whoever reaches this server is its only visitor, and the proxy in between passes no cookies on.
        "server.enableXsrfProtection": False,
        "server.fileWatcherType": "none",
        "browser.gatherUsageStats": False,
        "client.showErrorDetails": "full",
        "global.developmentMode": False,
        "logger.level": "error",
    }
)

versions = {"python": sys.version.split()[0], "streamlit": streamlit.__version__}
ready = {"ready": True, "seccomp": seccomp, "versions": versions, "uid": os.getuid()}
os.write(1, json.dumps(ready).encode() + b"\n")

listener = socket.socket(fileno=os.dup(0))

# Wait for the job, or for the end of whoever would send it: its end of the pipe is gone then.
poll = select.poll()
poll.register(listener.fileno(), select.POLLIN)
poll.register(1, 0)
if 1 in (fd for fd, _ in poll.poll()):
    os._exit(0)
connection, _ = listener.accept()
job = json.loads(connection.makefile("rb").readline())

root = "/app"
for file in job["files"]:
    path = os.path.join(root, file["path"])
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8", newline="") as handle:
        handle.write(file["content"])
for asset in job["assets"]:
    path = os.path.join(root, asset["path"])
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as handle:
        handle.write(base64.b64decode(asset["base64"]))
os.chdir(root)

# What the app prints goes nowhere; a copy keeps the pipe by which the outside notices that all of this has ended.
lifeline = os.dup(1)
null = os.open("/dev/null", os.O_RDWR)
for fd in (0, 1, 2):
    os.dup2(null, fd)

spent = resource.getrusage(resource.RUSAGE_SELF)
cpu = int(spent.ru_utime + spent.ru_stime) + 1 + job["cpu_seconds"]
for kind, limit in (
    (resource.RLIMIT_AS, job["memory_bytes"]),
    (resource.RLIMIT_CPU, cpu),
    (resource.RLIMIT_FSIZE, job["file_bytes"]),
    (resource.RLIMIT_NOFILE, job["open_files"]),
    (resource.RLIMIT_NPROC, job["processes"]),
    (resource.RLIMIT_CORE, 0),
):
    resource.setrlimit(kind, (limit, limit))
connection.close()

app = App(os.path.join(root, job["main"]))
config = uvicorn.Config(app, lifespan="on", log_level="critical", access_log=False)
uvicorn.Server(config).run(sockets=[listener])
