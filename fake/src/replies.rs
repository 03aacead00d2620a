//! What the model says: a function of the request alone.

use serde_json::{Value, json};

use crate::faults::draws;

/// Apps that draw their interface first, then three that open with settings.
const APPS: [&str; 9] = [
    "import streamlit as st\n\nst.title(\"Contact us\")\nst.write(\"We answer within a day.\")\nwith st.form(\"contact\"):\n    \
     name = st.text_input(\"Name\")\n    email = st.text_input(\"Email\")\n    sent = st.form_submit_button(\"Send\")\nif sent:\n    \
     st.success(f\"Thank you, {name or email}\")\n",
    "import streamlit as st\n\nst.title(\"To do\")\nitems = st.session_state.setdefault(\"items\", [])\nnew = st.text_input(\"New \
     task\")\nif st.button(\"Add\") and new:\n    items.append(new)\nif not items:\n    st.info(\"Nothing to do yet.\")\nfor index, \
     item in enumerate(items):\n    st.checkbox(item, key=f\"item-{index}\")\n",
    "import streamlit as st\n\nst.title(\"Tip calculator\")\nbill = st.number_input(\"Bill\", min_value=0.0, value=40.0)\nshare = \
     st.slider(\"Tip in percent\", 0, 30, 15)\nst.metric(\"Total\", f\"{bill * (1 + share / 100):.2f}\")\n",
    "import streamlit as st\n\nst.title(\"Sales\")\nmonths = [\"January\", \"February\", \"March\"]\nvalues = [12, 18, 9]\nchosen = \
     st.multiselect(\"Months\", months, default=months)\nrows = [v for m, v in zip(months, values) if m in chosen]\nif rows:\n    \
     st.bar_chart(rows)\n    st.metric(\"Sum\", sum(rows))\nelse:\n    st.info(\"Choose a month.\")\n",
    "import streamlit as st\n\nst.title(\"Quiz\")\nanswer = st.radio(\"Which planet is the largest?\", [\"Mars\", \"Jupiter\", \
     \"Venus\"], index=None)\nif st.button(\"Check\"):\n    if answer == \"Jupiter\":\n        st.success(\"Right.\")\n    elif \
     answer:\n        st.error(\"No, it is Jupiter.\")\n    else:\n        st.warning(\"Choose an answer first.\")\n",
    "import streamlit as st\n\nst.title(\"Notes\")\nleft, right = st.columns(2)\nwith left:\n    text = st.text_area(\"Your \
     note\", placeholder=\"Write here\")\nwith right:\n    st.subheader(\"Preview\")\n    st.markdown(text or \"_Nothing \
     yet_\")\nst.caption(f\"{len(text.split())} words\")\n",
    "import streamlit as st\n\nst.set_page_config(page_title=\"App\", layout=\"wide\")\n\nst.title(\"Settings\")\ntheme = \
     st.selectbox(\"Theme\", [\"light\", \"dark\"])\nst.write(f\"Theme: {theme}\")\n",
    "import os\n\nimport streamlit as st\n\nCONFIG = {\"debug\": os.environ.get(\"DEBUG\", \"0\"), \"retries\": 3, \"cache\": \
     True}\nLIMITS = {\"rows\": 100, \"columns\": 10}\n\n\ndef load():\n    return CONFIG\n\n\nst.json(load())\n",
    "import streamlit as st\n\nAPI_URL = \"http://example.invalid\"\nTIMEOUT = 30\nSTYLES = \"<style>h1 { color: red; \
     }</style>\"\n\nst.markdown(STYLES, unsafe_allow_html=True)\nst.header(\"Dashboard\")\nst.write(\"Connected to\", API_URL)\n",
];

/// A request, whichever dialect it came in.
pub(crate) struct Question {
    pub model: String,
    pub system: String,
    /// Everything that was said.
    pub text: String,
    pub last: String,
    pub messages: u64,
    pub limit: Option<u64>,
    pub stream: bool,
    pub wants_usage: bool,
}

impl Question {
    /// Reads a body of either dialect.
    pub fn read(body: &Value) -> Self {
        let messages = body["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
        let of = |role: &str| messages.iter().find(|message| message["role"] == role);
        let system = match &body["system"] {
            Value::Null => of("system").map(|message| text_of(&message["content"])).unwrap_or_default(),
            system => text_of(system),
        };
        let all: Vec<String> = messages.iter().map(|message| text_of(&message["content"])).collect();
        let limit = body["max_completion_tokens"].as_u64().or(body["max_tokens"].as_u64());
        Self {
            model: body["model"].as_str().unwrap_or("m").to_owned(),
            text: format!("{system}{}", all.concat()),
            last: all.last().cloned().unwrap_or_default(),
            system,
            messages: messages.len() as u64,
            limit,
            stream: body["stream"] == true,
            wants_usage: body["stream_options"]["include_usage"] == true,
        }
    }

    /// The whole answer, before any limit.
    fn answer(&self, seed: u64, sha: &str) -> String {
        let [draw, other] = draws(&format!("{seed}/{sha}"));
        let (system, last) = (self.system.as_str(), self.last.as_str());
        if system.starts_with("You write checklists") {
            let items: Vec<Value> =
                (1..=8).map(|i| json!({ "question": format!("Is point {i} met?") })).collect();
            json!({ "items": items }).to_string()
        } else if system.starts_with("You check an app") {
            let ids = last.lines().filter_map(|line| line.split_once(": ")).map(|(id, _)| id);
            let ids = ids.filter(|id| id.strip_prefix('q').is_some_and(|n| n.parse::<u32>().is_ok()));
            let word = |index: usize| ["yes", "yes", "partial", "no"][((draw >> (index % 60)) % 4) as usize];
            let answers: Vec<Value> = ids
                .enumerate()
                .map(|(index, id)| json!({"id": id, "evidence": "st.title", "answer": word(index)}))
                .collect();
            json!({ "answers": answers }).to_string()
        } else if system.starts_with("You compare") {
            let better = ["1", "2", "tie"][(draw % 3) as usize];
            json!({"why": "it does more of what was asked", "better": better}).to_string()
        } else if last.starts_with("Say ok") {
            "ok".into()
        } else {
            let app = APPS[(draw % APPS.len() as u64) as usize];
            format!("Here it is:\n\n```python\n{app}# {:04x}\n```\n", other & 0xffff)
        }
    }

    /// Tokens of a text, as this provider counts them: a quarter of its bytes.
    fn tokens(text: &str) -> u64 {
        text.len().div_ceil(4) as u64
    }

    /// Answers, within the limit on tokens.
    pub fn reply(&self, seed: u64, sha: &str) -> Reply {
        let text = self.answer(seed, sha);
        let input = Self::tokens(&self.text) + 4 * self.messages;
        let output = Self::tokens(&text);
        match self.limit.filter(|limit| *limit < output) {
            None => Reply { text: Some(text), finish: Finish::Stop, input, output },
            Some(limit) => {
                let end = text.floor_char_boundary(4 * limit as usize);
                Reply { text: Some(text[..end].to_owned()), finish: Finish::Length, input, output: limit }
            }
        }
    }
}

fn text_of(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().filter_map(|part| part["text"].as_str()).collect(),
        _ => String::new(),
    }
}

/// An answer, before it is put into a dialect.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub text: Option<String>,
    pub finish: Finish,
    pub input: u64,
    pub output: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finish {
    Stop,
    Length,
    Refusal,
    Filter,
}

impl Reply {
    /// `chat.completion`
    pub fn chat(&self, model: &str, id: &str) -> Value {
        let refusal = (self.finish == Finish::Refusal).then_some("I cannot help with that.");
        json!({
            "id": format!("chatcmpl-{id}"), "object": "chat.completion", "created": 1_760_000_000, "model": model,
            "choices": [{
                "index": 0, "logprobs": null, "finish_reason": self.chat_finish(),
                "message": {"role": "assistant", "content": self.text, "refusal": refusal, "annotations": []},
            }],
            "usage": self.usage(), "service_tier": "default", "system_fingerprint": "fp_fake",
        })
    }

    fn usage(&self) -> Value {
        json!({"prompt_tokens": self.input, "completion_tokens": self.output, "total_tokens": self.input + self.output})
    }

    fn chat_finish(&self) -> &'static str {
        match self.finish {
            Finish::Length => "length",
            Finish::Filter => "content_filter",
            Finish::Stop | Finish::Refusal => "stop",
        }
    }

    /// The same as events of a stream.
    pub fn chat_events(&self, model: &str, id: &str, wants_usage: bool) -> Vec<String> {
        let chunk = |choices: Value, usage: Value| {
            json!({
                "id": format!("chatcmpl-{id}"), "object": "chat.completion.chunk", "created": 1_760_000_000, "model": model,
                "choices": choices, "usage": usage,
            })
            .to_string()
        };
        let delta = |delta: Value, finish: Value| {
            chunk(
                json!([{"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish}]),
                Value::Null,
            )
        };
        let mut events = vec![delta(json!({"role": "assistant", "content": ""}), Value::Null)];
        if self.finish == Finish::Refusal {
            events.push(delta(json!({"refusal": "I cannot help with that."}), Value::Null));
        }
        events.extend(self.pieces().map(|piece| delta(json!({ "content": piece }), Value::Null)));
        events.push(delta(json!({}), json!(self.chat_finish())));
        if wants_usage {
            events.push(chunk(json!([]), self.usage()));
        }
        events.push("[DONE]".into());
        events.iter().map(|data| format!("data: {data}\n\n")).collect()
    }

    fn pieces(&self) -> impl Iterator<Item = String> {
        let letters: Vec<char> = self.text.as_deref().unwrap_or_default().chars().collect();
        let size = letters.len().div_ceil(5).max(1);
        letters.chunks(size).map(|piece| piece.iter().collect()).collect::<Vec<String>>().into_iter()
    }

    fn message_stop(&self) -> &'static str {
        match self.finish {
            Finish::Stop => "end_turn",
            Finish::Length => "max_tokens",
            Finish::Refusal | Finish::Filter => "refusal",
        }
    }

    /// A `message` of Anthropic's.
    pub fn message(&self, model: &str, id: &str) -> Value {
        let blocks: Vec<Value> = self.text.iter().map(|text| json!({"type": "text", "text": text})).collect();
        json!({
            "id": format!("msg_{id}"), "type": "message", "role": "assistant", "model": model, "content": blocks,
            "stop_reason": self.message_stop(), "stop_sequence": null,
            "usage": {"input_tokens": self.input, "output_tokens": self.output, "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": 0},
        })
    }

    /// The same as events of a stream.
    pub fn message_events(&self, model: &str, id: &str) -> Vec<String> {
        let mut start = self.message(model, id);
        start["content"] = json!([]);
        start["stop_reason"] = Value::Null;
        let mut events = vec![
            json!({"type": "message_start", "message": start}),
            json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
            json!({"type": "ping"}),
        ];
        events.extend(self.pieces().map(|piece| {
            json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": piece}})
        }));
        events.push(json!({"type": "content_block_stop", "index": 0}));
        events.push(json!({"type": "message_delta", "delta": {"stop_reason": self.message_stop(), "stop_sequence": null},
            "usage": {"output_tokens": self.output}}));
        events.push(json!({"type": "message_stop"}));
        let line = |event: &Value| {
            format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap_or_default())
        };
        events.iter().map(line).collect()
    }
}
