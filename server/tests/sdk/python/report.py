"""Named checks: all of them run, those that fail are told, and one is enough to fail the session."""

import sys
import time
import traceback


class Report:
    def __init__(self):
        self.held, self.failed, self.call = 0, [], ""

    def run(self, call, session):
        """A numbered call: what stops it is one more failure, and the next one has its turn."""
        number, name = call.__doc__.split(" ", 1)
        self.call, start = f"{number} {name}", time.monotonic()
        try:
            call(session, self)
        except Exception as error:  # whatever it is, the session has to go on
            where = traceback.extract_tb(error.__traceback__)
            lines = [frame.lineno for frame in where if frame.filename == call.__code__.co_filename]
            self.fail(f"stops at line {lines[-1] if lines else '?'}", f"{type(error).__name__}: {error}")
        print(f"{time.monotonic() - start:5.1f} s  {self.call}", flush=True)

    def fail(self, what, seen):
        self.failed.append(what)
        print(f"FAILED  {self.call}: {what}: {str(seen)[:600]}", flush=True)

    def check(self, what, holds, seen=None):
        if holds:
            self.held += 1
        else:
            self.fail(what, repr(seen))
        return holds

    def refused(self, what, kind, call, code=None, param=None):
        """`call` has to raise `kind`, or one of several, with a request id, and with this code and parameter where they are named."""
        try:
            answer = call()
        except kind as error:
            self.check(f"{what}: request id", str(error.request_id).startswith("req_"), error.request_id)
            if code is not None:
                self.check(f"{what}: code", error.code == code, error.code)
            if param is not None:
                self.check(f"{what}: param", error.param == param, error.param)
            return error
        except Exception as error:
            self.fail(what, f"{type(error).__name__} instead of {kind}: {error}")
            return None
        self.fail(what, f"no {kind} but {answer!r}")
        return None

    def close(self, who):
        total = self.held + len(self.failed)
        print(f"{self.held} of {total} checks hold with {who}", flush=True)
        sys.exit(1 if self.failed else 0)
