"""A single-use Streamlit server inside the sandbox.

Started ahead of time: imports what apps use, says that it is ready, waits for one job (a JSON line on the first
connection to the listening socket at fd 0), and serves the job's app on that same socket until it is killed. No path of
the host is writable here: the app's files come with the job and live on a small tmpfs.

As a `parent` it never takes a job. It imports once, and for each message on the socket at fd 0 forks a worker into
namespaces of its own, which then is what a worker is that was started alone. The parent runs no line of any candidate.
"""

import base64
import importlib
import json
import os
import resource
import select
import signal
import socket
import sys

wait_seconds, _, filters, role = sys.argv[1:5]

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
seccomp = refuse_calls(filters) if role == "worker" else False

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
        "server.agentWaitTimeout": int(wait_seconds),
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

# What the first page of any app imports: a parent does it once for all. Other versions may have other modules.
LATER = """
anyio._backends._asyncio h11 html itsdangerous narwhals._pandas_like.dataframe narwhals._pandas_like.namespace
narwhals.stable.v1._namespace pandas.core.reshape.reshape pandas.io.formats.csvs pandas.io.formats.string
pyarrow.pandas_compat starlette.applications starlette.middleware.body_limit starlette.middleware.sessions
starlette.routing starlette.staticfiles starlette.websockets streamlit.components.v2.manifest_scanner
streamlit.dataframe.lazy_df_adapters streamlit.runtime.agent.interaction streamlit.runtime.agent.mcp
streamlit.runtime.agent.snapshot streamlit.runtime.agent.widget_values streamlit.runtime.agent.widget_writes
streamlit.runtime.scriptrunner.magic_funcs
streamlit.web.server.starlette.starlette_agent_routes streamlit.web.skills uvicorn.lifespan.on
uvicorn.loops.asyncio uvicorn.loops.auto uvicorn.protocols.http.auto uvicorn.protocols.http.h11_impl
uvicorn.protocols.websockets.auto uvicorn.protocols.websockets.websockets_sansio_impl
"""


def say(**message):
    os.write(1, json.dumps(message).encode() + b"\n")


def fork_workers():
    """Forks a worker for each message and returns in each worker, whose fds 0 and 1 are those that came along."""
    import gc

    for name in LATER.split():
        try:
            importlib.import_module(name)
        except ImportError:
            pass
    control = socket.socket(fileno=os.dup(0))
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    # What is here now stays shared: the collector would touch, and so copy, every page of it in every worker.
    gc.collect()
    gc.freeze()
    say(ready=True, seccomp=False, versions=versions)
    while True:
        message, fds, _, _ = socket.recv_fds(control, 4096, 2)
        if not message:
            os._exit(0)
        if os.fork() == 0:
            control.close()
            for target, fd in enumerate(fds):
                os.dup2(fd, target)
                os.close(fd)
            try:
                isolate(json.loads(message)["uid"])
            except OSError as error:
                say(ready=False, why=str(error))
                os._exit(1)
            return
        for fd in fds:
            os.close(fd)


def isolate(uid):
    """Namespaces of one's own: processes, mounts, network, names; with `uid` that user, else a user namespace too."""
    import ctypes
    import fcntl
    import struct

    import numpy

    libc = ctypes.CDLL(None, use_errno=True)

    def check(what, result):
        if result != 0:
            code = ctypes.get_errno()
            raise OSError(code, f"{what}: {os.strerror(code)}")

    def mount(kind, folder, flags, options=None):
        check(f"mount {folder.decode()}", libc.mount(kind, folder, kind, flags, options))

    # NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWPID, NEWNET; NEWUSER
    flags = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x20000000 | 0x40000000
    own, group = os.getuid(), os.getgid()
    check("unshare", libc.unshare(flags if uid is not None else flags | 0x10000000))
    if uid is None:
        for name, line in (("setgroups", "deny"), ("uid_map", f"{own} {own} 1"), ("gid_map", f"{group} {group} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(line)
    # Only a child is in the new namespace of processes. It is the first there: with it all end.
    if os.fork():
        os._exit(0)
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    nosuid_nodev, noexec, private_all, read_only = 2 | 4, 8, 0x4000 | 0x40000, 1
    check("mount /", libc.mount(None, b"/", None, private_all, None))
    mount(b"proc", b"/proc", nosuid_nodev | noexec)
    for folder in (b"/tmp", b"/app"):
        mount(b"tmpfs", folder, nosuid_nodev, b"mode=1777,size=" + TMPFS)
    # Terminals that another worker opens would be seen here.
    mount(b"tmpfs", b"/dev/pts", nosuid_nodev | noexec | read_only, b"size=0")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plain:
        up = struct.pack("16sH14s", b"lo", 1, b"")
        fcntl.ioctl(plain, 0x8914, up)
    if uid is not None:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    # In a user namespace of its own a process keeps all capabilities until it gives them up.
    for capability in range(64):
        if libc.prctl(24, capability, 0, 0, 0) != 0:
            break
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    check("capset", libc.capset(header, (ctypes.c_uint32 * 6)()))
    # Python's own generator seeds itself anew after a fork, numpy's does not.
    numpy.random.seed()


TMPFS = b"67108864"

versions = {"python": sys.version.split()[0], "streamlit": streamlit.__version__}
if role == "parent":
    fork_workers()
    seccomp = refuse_calls(filters)
say(ready=True, seccomp=seccomp, versions=versions)

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
