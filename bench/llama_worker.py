"""llama.cpp on one GGUF file: python llama_worker.py MODEL, with the build to measure on PYTHONPATH."""

import ctypes
import sys
import time

import llama_cpp as llama

from serve_worker import peak_mb, serve

QUIET = llama.llama_log_callback(lambda level, text, data: None)
FORMATS = {
    "q4_0": llama.LLAMA_FTYPE_MOSTLY_Q4_0,
    "q8_0": llama.LLAMA_FTYPE_MOSTLY_Q8_0,
    "bf16": llama.LLAMA_FTYPE_MOSTLY_BF16,
    "f16": llama.LLAMA_FTYPE_MOSTLY_F16,
}


class Context:
    """A context with room for `sequences` of `length` tokens each, freed at the end of a `with`."""

    def __init__(self, model, sequences, length, threads, flash):
        params = llama.llama_context_default_params()
        params.n_ctx = sequences * length
        params.n_batch = params.n_ubatch = 512
        params.n_seq_max = sequences
        params.n_threads = params.n_threads_batch = threads
        params.flash_attn_type = (
            llama.LLAMA_FLASH_ATTN_TYPE_ENABLED if flash else llama.LLAMA_FLASH_ATTN_TYPE_DISABLED
        )
        params.no_perf = True
        self.handle = llama.llama_init_from_model(model, params)
        if not self.handle:
            raise RuntimeError("no context")
        self.batch = llama.llama_batch_init(512, 0, 1)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        llama.llama_batch_free(self.batch)
        llama.llama_free(self.handle)

    def feed(self, rows):
        """Rows of (token, position, sequence, whether its logits are wanted), 512 at most."""
        batch = self.batch
        batch.n_tokens = len(rows)
        for i, (token, position, sequence, wanted) in enumerate(rows):
            batch.token[i], batch.pos[i], batch.n_seq_id[i] = token, position, 1
            batch.seq_id[i][0], batch.logits[i] = sequence, wanted
        if llama.llama_decode(self.handle, batch) != 0:
            raise RuntimeError("llama_decode failed")

    def read(self, ids, sequence):
        for start in range(0, len(ids), 512):
            part = ids[start:start + 512]
            last = len(ids) - 1
            self.feed([(id, start + i, sequence, start + i == last) for i, id in enumerate(part)])

    def finish(self):
        llama.llama_synchronize(self.handle)


class Worker:
    def __init__(self, path):
        llama.llama_log_set(QUIET, ctypes.c_void_p())
        llama.llama_backend_init()
        params = llama.llama_model_default_params()
        self.model = llama.llama_model_load_from_file(path.encode(), params)
        if not self.model:
            raise RuntimeError(f"{path} cannot be loaded")
        self.vocab = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(self.model))

    def about(self):
        return {"system": llama.llama_print_system_info().decode()}

    def prompt(self, ids, threads, flash):
        with Context(self.model, 1, len(ids), threads, flash) as context:
            start = time.perf_counter()
            context.read(ids, 0)
            context.finish()
            seconds = time.perf_counter() - start
            logits = llama.llama_get_logits_ith(context.handle, -1)
            top = max(range(self.vocab), key=lambda id: logits[id])
        return {"seconds": seconds, "top": top}

    def decode(self, prompts, then, threads, flash):
        """Reads the prompts, then takes the time of feeding every sequence its next tokens, one a step."""
        length = len(prompts[0]) + len(then[0])
        with Context(self.model, len(prompts), length, threads, flash) as context:
            for sequence, ids in enumerate(prompts):
                context.read(ids, sequence)
            context.finish()
            start = time.perf_counter()
            for step in range(len(then[0])):
                at = len(prompts[0]) + step
                context.feed([(ids[step], at, sequence, True) for sequence, ids in enumerate(then)])
            context.finish()
            seconds = time.perf_counter() - start
        return {"seconds": seconds}

    def peak(self):
        return {"mb": peak_mb()}


def quantize(source, target, name):
    llama.llama_log_set(QUIET, ctypes.c_void_p())
    params = llama.llama_model_quantize_default_params()
    params.ftype, params.allow_requantize = FORMATS[name], True
    if llama.llama_model_quantize(source.encode(), target.encode(), params) != 0:
        raise RuntimeError(f"{source} cannot be written as {name}")


if __name__ == "__main__":
    if sys.argv[1] == "quantize":
        quantize(*sys.argv[2:5])
    else:
        worker = Worker(sys.argv[1])
        serve({name: getattr(worker, name) for name in ("about", "prompt", "decode", "peak")})
