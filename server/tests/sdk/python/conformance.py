"""A session with OpenAI's own SDK: every call that users' code makes, as a named check.

In strict mode the SDK refuses an answer with a missing or ill-typed field; in plain mode, which is what users run, nothing
is validated and the behaviour shows.
"""

import argparse

import openai

import answers
import chat
import storage
import tuning
from report import Report
from session import Session

CALLS = storage.CALLS + tuning.CALLS + chat.CALLS + answers.CALLS


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("base", help="a model that can be trained in moments")
    parser.add_argument("--strict", action="store_true", help="the SDK validates what it gets")
    room = "a server with a key and room for two answers"
    parser.add_argument("--guarded", nargs=2, metavar=("URL", "KEY"), help=room)
    parser.add_argument("--pid", type=int, help="process of the server: its memory is looked at")
    parser.add_argument("--only", nargs="*", help="numbers of calls; later ones need what 6 and 7 made")
    args = parser.parse_args()
    session = Session(args.url, args.base, args.strict, *(args.guarded or (None, None)), args.pid)
    report = Report()
    for call in CALLS:
        if args.only is None or call.__doc__.split()[0] in args.only:
            report.run(call, session)
    report.close(f"openai {openai.__version__}, {'strict' if args.strict else 'plain'}")


if __name__ == "__main__":
    main()
