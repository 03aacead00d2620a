"""PyTorch with PEFT on the weights of a GGUF file of the llama family: python torch_worker.py MODEL f32|bf16"""

import sys
import time

import gguf
import peft
import torch
import transformers

from serve_worker import forget_peak, peak_mb, serve

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
NAMES = {
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj", "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
}


def field(reader, name):
    return reader.fields[f"llama.{name}"].contents()


def apart(matrix, heads):
    """GGUF keeps the two halves of a head's rotary pairs beside each other; transformers keeps them apart."""
    rows, columns = matrix.shape
    return matrix.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def load(path):
    reader = gguf.GGUFReader(path)
    heads, kv_heads = field(reader, "attention.head_count"), field(reader, "attention.head_count_kv")
    state = {}
    for tensor in reader.tensors:
        data = gguf.dequantize(tensor.data, tensor.tensor_type)
        parts = tensor.name.removesuffix(".weight").split(".")
        if parts[0] == "blk":
            if parts[2] in ("attn_q", "attn_k"):
                data = apart(data, heads if parts[2] == "attn_q" else kv_heads)
            name = f"model.layers.{parts[1]}.{NAMES[parts[2]]}"
        else:
            name = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}[parts[0]]
        state[name + ".weight"] = torch.from_numpy(data.copy()).float()
    tied = "lm_head.weight" not in state
    vocab, hidden = state["model.embed_tokens.weight"].shape
    config = transformers.LlamaConfig(
        vocab_size=vocab, hidden_size=hidden, intermediate_size=field(reader, "feed_forward_length"),
        num_hidden_layers=field(reader, "block_count"), num_attention_heads=heads, num_key_value_heads=kv_heads,
        max_position_embeddings=field(reader, "context_length"),
        rms_norm_eps=field(reader, "attention.layer_norm_rms_epsilon"), tie_word_embeddings=tied,
        rope_parameters={"rope_type": "default", "rope_theta": field(reader, "rope.freq_base")},
        attn_implementation="sdpa",
    )
    model = transformers.LlamaForCausalLM(config)
    missing, unknown = model.load_state_dict(state, strict=False)
    assert not unknown and (not missing or tied and missing == ["lm_head.weight"]), (missing, unknown)
    model.tie_weights()
    return model


class Worker:
    def __init__(self, path, precision):
        self.bare_mb = peak_mb()
        self.dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[precision]
        self.base = load(path).to(self.dtype)
        self.base.config.use_cache = False

    def about(self):
        return {"system": torch.backends.cpu.get_cpu_capability(), "threads": torch.get_num_threads()}

    def fresh(self, adapter, rank, alpha):
        """The base with an adapter: that of a folder, or a new one."""
        if isinstance(self.base, peft.PeftModel):
            self.base = self.base.unload()
        if adapter is not None:
            tuned = peft.PeftModel.from_pretrained(
                self.base, adapter, is_trainable=True, autocast_adapter_dtype=False
            )
        else:
            config = peft.LoraConfig(r=rank, lora_alpha=alpha, target_modules=TARGETS, task_type="CAUSAL_LM")
            tuned = peft.get_peft_model(self.base, config, autocast_adapter_dtype=False)
        self.base = tuned
        return tuned.to(self.dtype).train()

    def train(self, examples, batch, rates, padded, picked, adapter=None, rank=8, alpha=16, clip=1.0):
        """Steps over `examples` in their order, `batch` at a time, with the learning rate of each step in `rates`.

        `padded`: sequences of a batch together, or one by one with gradients added up. `picked`: logits of the trained
        positions only, or of all of them.
        """
        forget_peak()
        tuned = self.fresh(adapter, rank, alpha)
        trained = [p for p in tuned.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
        seconds, losses = [], []
        for step, rate in enumerate(rates):
            start = time.perf_counter()
            rows = [examples[(step * batch + i) % len(examples)] for i in range(batch)]
            count = sum(sum(row["trained"][1:]) for row in rows)
            loss = 0.0
            for part in [rows] if padded else [[row] for row in rows]:
                part_loss = summed_loss(tuned, part, picked) / count
                part_loss.backward()
                loss += part_loss.item()
            torch.nn.utils.clip_grad_norm_(trained, clip)
            optimizer.param_groups[0]["lr"] = rate
            optimizer.step()
            optimizer.zero_grad()
            seconds.append(time.perf_counter() - start)
            losses.append(loss)
        return {"seconds": seconds, "losses": losses, "peak_mb": peak_mb(), "bare_mb": self.bare_mb}


def summed_loss(tuned, rows, picked):
    width = max(len(row["ids"]) for row in rows)
    ids = torch.tensor([row["ids"] + [0] * (width - len(row["ids"])) for row in rows])
    seen = torch.tensor([[1] * len(row["ids"]) + [0] * (width - len(row["ids"])) for row in rows])
    mask = None if len(rows) == 1 else seen
    flags = [row["trained"] + [False] * (width - len(row["ids"])) for row in rows]
    # The logits before a trained token tell its probability.
    before = torch.tensor(flags)[:, 1:]
    targets = ids[:, 1:][before]
    if picked:
        hidden = tuned.base_model.model.model(input_ids=ids, attention_mask=mask).last_hidden_state
        logits = tuned.base_model.model.lm_head(hidden[:, :-1][before])
    else:
        logits = tuned(input_ids=ids, attention_mask=mask).logits[:, :-1][before]
    return torch.nn.functional.cross_entropy(logits.float(), targets, reduction="sum")


if __name__ == "__main__":
    worker = Worker(*sys.argv[1:3])
    serve({name: getattr(worker, name) for name in ("about", "train")})
