"""Evolution logs for the comparison of `hone prepare`: apps that differ, among them planted near-copies and planted leaks
of held-out briefs, and what was planted where."""

import io
import json
import keyword
import pathlib
import random
import re
import tokenize

ROOT = pathlib.Path(__file__).parent.parent
EVIDENCE = json.loads((ROOT / "bench" / "evidence.json").read_text())
TWINS, LEAKS = 1 / 25, 1 / 50

STATEMENTS = [
    'st.subheader("{w} {w}")',
    'st.write("{w} {w} {w} {w}")',
    'st.caption("{w} {w} {w}")',
    '{i} = st.text_input("{w} {w}", placeholder="{w}")',
    '{i} = st.number_input("{w}", min_value={n}, max_value=9{n}, step={n})',
    '{i} = st.selectbox("{w} {w}", ["{w}", "{w}", "{w}"])',
    '{i} = st.slider("{w}", 0, 1{n}, {n}, key="{w}")',
    'st.metric("{w} {w}", "{n} {w}", "{n}%")',
    '{i}, {i} = st.columns([{n}, {n}])',
    'st.session_state.setdefault("{w}", {n})',
    'if st.button("{w} {w}", key="{w}"):\n    st.success("{w} {w} {w}")\n    st.toast("{w}")',
    'with st.expander("{w} {w}"):\n    st.checkbox("{w} {w}", value=True)\n    st.date_input("{w}")',
    'for {i} in ["{w}", "{w}", "{w}"]:\n    st.markdown(f"**{{{i}}}** {w}")',
    'st.dataframe([{{"{w}": {n}, "{w}": "{w}"}}, {{"{w}": {n}, "{w}": "{w}"}}], hide_index=True)',
    'st.bar_chart({{"{w}": [{n}, {n}, {n}], "{w}": [{n}, {n}, {n}]}}, height=2{n}0)',
    '{i} = [item for item in range({n}) if item % {n} == 0]\nst.line_chart({i})',
]
SYLLABLES = [a + b for a in "bdfgklmnprstvz" for b in ("a", "e", "i", "o", "u", "ar", "en", "or")]


class Writer:
    """Makes words, apps and briefs from a seed."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        made = {"".join(self.random.choices(SYLLABLES, k=self.random.randint(2, 4))) for _ in range(6000)}
        self.words = sorted(word for word in made if not keyword.iskeyword(word))

    def word(self):
        return self.random.choice(self.words)

    def text(self, count):
        return " ".join(self.random.choices(self.words, k=count))

    def statement(self):
        """One of the statements with its gaps filled; a name that comes twice is the same."""
        text, name = self.random.choice(STATEMENTS), self.word()
        parts = text.replace("{i}", name).replace("{{", "\0").replace("}}", "\1")
        while "{w}" in parts:
            parts = parts.replace("{w}", self.word(), 1)
        while "{n}" in parts:
            parts = parts.replace("{n}", str(self.random.randint(1, 9)), 1)
        return parts.replace("\0", "{").replace("\1", "}")

    def app(self):
        head = ["import streamlit as st", "", f'st.set_page_config(page_title="{self.text(2)}")', f'st.title("{self.text(3)}")']
        return head + [self.statement() for _ in range(self.random.randint(10, 26))]

    def twin(self, app, low, high):
        """A copy with statements replaced until its similarity is between two bounds."""
        original = runs("\n".join(app))
        for _ in range(40):
            copy, changes = list(app), self.random.randint(1, max(1, len(app) // 5))
            for _ in range(changes):
                place = self.random.randrange(3, len(copy))
                words = copy[place].split('"')
                if len(words) > 2 and self.random.random() < 0.7:
                    words[1] = self.text(2)
                    copy[place] = '"'.join(words)
                else:
                    copy[place] = self.statement()
            similarity = jaccard(original, runs("\n".join(copy)))
            if low <= similarity <= high:
                return copy, similarity
        return None


def runs(code):
    """Runs of five tokens without comments and layout."""
    tokens = []
    for token in tokenize.generate_tokens(io.StringIO(code + "\n").readline):
        if token.type in (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.ENDMARKER):
            continue
        tokens.append({tokenize.INDENT: ">", tokenize.DEDENT: "<"}.get(token.type, token.string))
    return {tuple(tokens[i:i + 5]) for i in range(len(tokens) - 4)}


def jaccard(a, b):
    return len(a & b) / len(a | b) if a or b else 1.0


def heldout():
    files = [ROOT / "lib/src/brief" / name for name in ("heldout.jsonl", "sealed.jsonl")]
    lines = [line for file in files if file.exists() for line in file.read_text().splitlines()]
    return [json.loads(line) for line in lines]


def leak(writer, texts, how):
    """A held-out description, cut to 13 words or with every tenth word changed."""
    while True:
        text = writer.random.choice(texts)
        if how == "13 words":
            words = list(re.finditer(r"[^\W_]+", text))
            if len(words) < 13:
                continue
            start = writer.random.randrange(len(words) - 12)
            return text[words[start].start():words[start + 12].end()]
        if how == "every tenth changed":
            words, first = text.split(), writer.random.randrange(10)
            return " ".join(writer.word() if n % 10 == first else word for n, word in enumerate(words))


def plain(text):
    return text.replace("\\", " ").replace('"', "'").replace("\n", " ")


def write(folder, count, seed=1):
    """Writes the logs of a workspace; returns what was planted."""
    writer = Writer(seed)
    logs = folder / "data" / "evolutionary_logs"
    logs.mkdir(parents=True, exist_ok=True)
    texts = [brief["description"] for brief in heldout()]
    truth = {"twins": [], "leaks": []}
    tails = {kind: json.dumps(EVIDENCE[kind], indent=2)[1:-1].replace("\n", "\n    ") for kind in EVIDENCE}
    pool = []
    for number in range(count):
        name = f"bench-{number:05}"
        description, requirements = writer.text(writer.random.randint(12, 40)), []
        apps = [writer.app(), writer.app()]
        if pool and writer.random.random() < 2 * TWINS:
            other, place, app = writer.random.choice(pool)
            made = writer.twin(app, 0.75, 0.99)
            if made:
                apps[1] = made[0]
                truth["twins"].append([other, place, name, 3, round(made[1], 4)])
        if writer.random.random() < LEAKS:
            how = writer.random.choice(["13 words", "every tenth changed"])
            where = writer.random.choice(["description", "requirement", "comment", "string"])
            text = leak(writer, texts, how)
            if where == "description":
                description = f"{writer.text(3)} {text}"
            elif where == "requirement":
                requirements = [writer.text(6), text]
            else:
                line = f"# {text}" if where == "comment" else f'st.info("{plain(text)}")'
                apps[0].insert(writer.random.randrange(4, len(apps[0])), line.replace("\n", " "))
            truth["leaks"].append([name, 2 if where in ("comment", "string") else None, how, where, text])
        else:
            pool += [(name, place, apps[place - 2]) for place in (2, 3) if not (place == 3 and truth["twins"] and truth["twins"][-1][2] == name)]
        pool = pool[-4000:]
        entries = [
            entry(1, "draft", [], "base", [("config.py", f'NAME = "{writer.text(2)}"\n'), ("app.py", "\n".join(writer.app()[:6]) + "\n")], tails["bad"], 0.4),
            entry(2, "restart", [], "composer", [("app.py", "\n".join(apps[0]) + "\n")], tails["good"], 9.2),
            entry(3, "restyle", [2], "composer", [("app.py", "\n".join(apps[1]) + "\n")], tails["good"], 9.6),
        ]
        head = {
            "format": "hone.evolution", "version": 1, "id": name, "kind": f"kind{number % 20}", "family": f"bench-family-{number // 3}",
            "description": description, "requirements": requirements, "framework": "Streamlit", "target_score": 8.0,
            "max_iterations": 4, "seed": 1, "critic": "3", "agent": "base", "teacher": "composer", "round": 1,
            "initial_score": 0.4, "final_score": 9.6, "best_iteration": 3, "improvement": 9.2, "target_reached": True,
            "total_iterations": 3,
        }
        text = json.dumps(head, indent=2)[:-2] + ',\n  "evolution_history": [\n' + ",\n".join(entries) + "\n  ]\n}\n"
        (logs / f"{name}.json").write_text(text)
    return truth


def entry(iteration, operator, parents, model, files, tail, score):
    head = {
        "iteration": iteration, "operator": operator, "parents": parents, "model": model,
        "files": [{"path": path, "content": content} for path, content in files], "ui_code": files[-1][1],
        "usage": {"input_tokens": 0, "output_tokens": 0, "usd": None}, "took_ms": 1,
    }
    head = json.dumps(head, indent=2)[:-2].replace("\n", "\n    ")
    tail = tail.replace('"overall_score": 9.61', f'"overall_score": {score}').replace('"overall_score": 0.0', f'"overall_score": {score}')
    return f"    {head},{tail}}}"
