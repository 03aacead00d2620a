"""The worker's side of the comparisons: orders as lines of JSON on stdin, answers as lines of JSON on stdout."""

import json
import sys


def peak_mb():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1000


def forget_peak():
    with open("/proc/self/clear_refs", "w") as refs:
        refs.write("5")


def serve(orders):
    """Carries out `{"do": NAME, ...}` with `orders[NAME](**rest)` until stdin ends."""
    # Libraries print; answers have the pipe to themselves.
    answers, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        order = json.loads(line)
        answer = orders[order.pop("do")](**order)
        print(json.dumps(answer), file=answers, flush=True)
