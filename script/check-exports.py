"""What other programs say about exported models: see `script/check-exports`.

    python check-exports.py torch|llama FOLDER
"""

import json
import pathlib
import sys

import numpy as np

what, folder = sys.argv[1], pathlib.Path(sys.argv[2])
ours = json.load(open(folder / "ours.json"))
failed = False


def compare(name, expected, logits, greedy, tolerance):
    """`tolerance`: largest difference of logits allowed, as a share of their standard deviation."""
    global failed
    want = np.array(expected["logits"], dtype=np.float64)
    got = np.array(logits, dtype=np.float64)[: len(want)]
    worst = np.abs(got - want).max() / want.std()
    same = 0
    for a, b in zip(greedy, expected["greedy"]):
        if a != b:
            break
        same += 1
    good = worst <= tolerance and got.argmax() == want.argmax()
    failed |= not good
    print(
        f"{'ok  ' if good else 'FAIL'} {name}: logits differ by {worst:.2e} of their deviation (at most {tolerance:g}), "
        f"greedy tokens alike {same} of {len(expected['greedy'])}"
    )


def check_ids(name, ids):
    global failed
    good = ids == ours["text_ids"]
    failed |= not good
    print(f"{'ok  ' if good else 'FAIL'} {name}: {len(ids)} token ids of a text {'are' if good else 'are not'} ours")


def with_torch():
    import peft
    import torch
    import transformers

    def said(model):
        prompt = torch.tensor([ours["prompt"]])
        with torch.no_grad():
            logits = model(prompt).logits[0, -1]
            out = model.generate(
                prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=len(ours["base"]["greedy"]),
                eos_token_id=None, pad_token_id=0,
            )
        return logits.tolist(), out[0, prompt.shape[1] :].tolist()

    load = lambda name: transformers.AutoModelForCausalLM.from_pretrained(folder / name, dtype=torch.float32)
    print(f"transformers {transformers.__version__}, peft {peft.__version__}, torch {torch.__version__}")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "merged")
    check_ids("tokenizer.json", tokenizer.encode(ours["text"], add_special_tokens=False))
    messages = [{"role": "user", "content": "Make a form with a name and an e-mail address."}]
    chat = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=False)
    print(f"{'ok  ' if chat == ours['prompt'] else 'FAIL'} chat template: {len(chat)} token ids of a conversation")
    global failed
    failed |= chat != ours["prompt"]
    base = load("base")
    compare("base as safetensors", ours["base"], *said(base), 1e-3)
    compare("PEFT adapter over it", ours["tuned"], *said(peft.PeftModel.from_pretrained(base, folder / "adapter")), 1e-3)
    compare("merged safetensors", ours["tuned"], *said(load("merged")), 1e-3)


def with_llama():
    import llama_cpp

    print(f"llama-cpp-python {llama_cpp.__version__}")
    for name, tolerance in (("merged-f16", 2e-2), ("merged-q8_0", 3e-1)):
        model = llama_cpp.Llama(str(folder / f"{name}.gguf"), n_ctx=512, logits_all=True, verbose=False)
        check_ids(name, model.tokenize(ours["text"].encode(), add_bos=False, special=False))
        model.reset()
        model.eval(ours["prompt"])
        logits = np.array(model.scores[len(ours["prompt"]) - 1])
        greedy = [int(logits.argmax())]
        while len(greedy) < len(ours["tuned"]["greedy"]):
            model.eval([greedy[-1]])
            greedy.append(int(np.array(model.scores[model.n_tokens - 1]).argmax()))
        compare(f"{name}.gguf", ours["tuned"], logits, greedy, tolerance)


{"torch": with_torch, "llama": with_llama}[what]()
sys.exit(failed)
