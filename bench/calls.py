"""The calls of `lib/benches/calls.rs` through OpenAI's own asynchronous client: rate, seconds of CPU, memory.

    python calls.py URL CALLS IN_FLIGHT LATENCY_MS
"""

import asyncio
import resource
import sys
import time

import openai

APP = 'st.write("A line of an app that is shown to the teacher")\n' * 20


async def main(url: str, calls: int, in_flight: int, latency_ms: int) -> None:
    client = openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0)
    numbers = iter(range(calls))
    times: list[float] = []
    started = time.monotonic()
    usage = resource.getrusage(resource.RUSAGE_SELF)

    async def worker() -> None:
        for n in numbers:
            reply = await client.chat.completions.create(
                model="m",
                messages=[
                    {"role": "system", "content": "You are an expert UI developer."},
                    {"role": "user", "content": f"Brief {n}: improve\n{APP}"},
                ],
                max_tokens=640,
                seed=n,
            )
            assert reply.choices[0].message.content
            times.append(time.monotonic() - started)

    await asyncio.gather(*(worker() for _ in range(in_flight)))
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - usage.ru_utime - usage.ru_stime
    times.sort()
    tenth, nine = len(times) // 10, len(times) * 9 // 10
    rate = (nine - tenth) / (times[nine - 1] - times[tenth])
    ideal = 1000 * in_flight / latency_ms
    print(
        f"openai  {len(times):6} calls  {rate:7.0f}/s of {ideal:.0f} ({100 * rate / ideal:.1f}%)  {cpu:6.2f} s CPU  "
        f"{after.ru_maxrss / 1024:.0f} MB at most  (openai {openai.__version__})"
    )


asyncio.run(main(sys.argv[1], *map(int, sys.argv[2:5])))
