//! A provider that answers as hosted ones do, fails as they fail, and counts what it would bill. For tests alone.
//!
//! Its replies are a function of the seed and of the request's body; its faults are decided by [`Faults`], or by the model's
//! name (`fault-reset-mid-2`). [`Meter`] is what a budget has to agree with. OpenAI's and Anthropic's shapes, for files and jobs Together's and Fireworks' too, below any path:
//! what a route is depends on how its path ends.

mod batches;
mod faults;
mod fireworks;
mod http;
mod message_batches;
mod meter;
mod replies;
mod shelf;
mod together;

pub use batches::Batching;
pub use faults::{Asked, Fault, Faults};
pub use http::Request;
pub use meter::{Meter, Price};
pub use shelf::Tuning;

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::net::{TcpListener, TcpStream};

use self::{
    batches::Batches,
    http::{Answer, Connection, End, Outcome},
    replies::{Finish, Question, Reply},
    shelf::Shelf,
};

/// What kind of a provider it is.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// 0 for any free one.
    pub port: u16,
    /// From a chat request to its answer.
    pub latency: Duration,
    pub price: Price,
    /// Of the replies.
    pub seed: u64,
    pub faults: Faults,
    pub tuning: Tuning,
    pub batching: Batching,
    /// Chat calls a second; what comes beyond it is refused with 429.
    pub rate: Option<f64>,
    /// Any other key is refused. Without one all are welcome.
    pub key: Option<String>,
    /// Keeps every request for [`Fake::requests`].
    pub record: bool,
}

/// A provider on this machine's loopback, until it is dropped.
#[derive(Debug)]
pub struct Fake {
    /// Ends in `/v1`.
    pub url: String,
    state: Arc<State>,
    runtime: Option<tokio::runtime::Runtime>,
}

#[derive(Debug)]
struct State {
    options: Options,
    meter: meter::Shared,
    faults: Mutex<Faults>,
    shelf: Mutex<Shelf>,
    requests: Mutex<Vec<Request>>,
    bucket: Mutex<Bucket>,
}

/// Calls that may still come this second.
#[derive(Debug)]
struct Bucket {
    left: f64,
    at: Instant,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Fake {
    /// Starts one on a thread of its own, from anywhere.
    ///
    /// # Errors
    /// When the port is taken.
    pub fn start(options: Options) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("fake-provider")
            .enable_all()
            .build()?;
        let listener = std::net::TcpListener::bind(("127.0.0.1", options.port))?;
        listener.set_nonblocking(true)?;
        let url = format!("http://{}/v1", listener.local_addr()?);
        let state = Arc::new(State {
            meter: meter::Shared::default(),
            faults: Mutex::new(options.faults.clone()),
            shelf: Mutex::new(Shelf::new(
                options.tuning.clone(),
                Batches::new(options.batching, options.price, options.seed),
            )),
            requests: Mutex::new(Vec::new()),
            bucket: Mutex::new(Bucket { left: 1.0, at: Instant::now() }),
            options,
        });
        let listener = {
            let _guard = runtime.enter();
            TcpListener::from_std(listener)?
        };
        runtime.spawn(accept(listener, Arc::clone(&state)));
        Ok(Self { url, state, runtime: Some(runtime) })
    }

    pub fn meter(&self) -> Meter {
        self.state.meter.lock().clone()
    }

    /// From now on other faults.
    pub fn set_faults(&self, faults: Faults) {
        *locked(&self.state.faults) = faults;
    }

    /// From now on jobs go another way.
    pub fn set_tuning(&self, tuning: Tuning) {
        locked(&self.state.shelf).set_tuning(tuning);
    }

    /// From now on batches go another way.
    pub fn set_batching(&self, batching: Batching) {
        locked(&self.state.shelf).set_batching(batching);
    }

    /// What came, if [`Options::record`] is set, but for requests of the meter.
    pub fn requests(&self) -> Vec<Request> {
        locked(&self.state.requests).clone()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // A test may drop it on a worker of its own runtime, where waiting is forbidden.
            runtime.shutdown_background();
        }
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                state.meter.lock().connections += 1;
                tokio::spawn(serve(stream, Arc::clone(&state)));
            }
            // Out of file descriptors, say: others have to close first.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

async fn serve(stream: TcpStream, state: Arc<State>) {
    let mut connection = Connection::new(stream);
    while let Some(request) = connection.request().await {
        if !state.exchange(&mut connection, request).await {
            return;
        }
    }
}

impl State {
    /// One request and its answer; whether the connection can take another.
    async fn exchange(&self, connection: &mut Connection, request: Request) -> bool {
        if request.path == "/meter" {
            let meter = self.meter.lock().to_json();
            return connection.send(Outcome::Whole(Answer::json(200, &meter))).await;
        }
        if self.options.record {
            locked(&self.requests).push(request.clone());
        }
        if self.options.key.as_ref().is_some_and(|key| key != request.key()) {
            return connection.send(Outcome::Whole(bad_key(request.key()))).await;
        }
        let dialect = match request.method.as_str() {
            "POST" if request.path.ends_with("/chat/completions") => Dialect::Chat,
            "POST" if request.path.ends_with("/messages") => Dialect::Messages,
            _ => {
                let outcome = locked(&self.shelf).route(&request, &self.meter);
                return connection.send(outcome.unwrap_or_else(|| Outcome::Whole(no_route(&request)))).await;
            }
        };
        let Ok(body) = serde_json::from_slice::<Value>(&request.body) else {
            let answer = refusal(400, "invalid_json", "the body is no JSON");
            return connection.send(Outcome::Whole(answer)).await;
        };
        let sha = sha_of(&body);
        let (earlier, _in_flight) = self.meter.begin(&sha);
        let call = Call { dialect, question: Question::read(&body), sha, key: request.key().to_owned() };
        let asked = Asked { sha: &call.sha, earlier, model: &call.question.model };
        let fault = locked(&self.faults).clone().decide(asked);
        let outcome = match self.is_over_rate() {
            true => Outcome::Whole(limited().with("retry-after-ms", "200")),
            false => self.answer(&call, fault),
        };
        if let Outcome::Whole(Answer { status: 429, .. }) = outcome {
            self.meter.lock().limited += 1;
        }
        if !self.options.latency.is_zero() && fault != Fault::ResetBefore {
            tokio::time::sleep(self.options.latency).await;
        }
        connection.send(outcome).await
    }

    /// Takes one call from this second's share.
    fn is_over_rate(&self) -> bool {
        let Some(rate) = self.options.rate else { return false };
        let mut bucket = locked(&self.bucket);
        let now = Instant::now();
        bucket.left =
            (bucket.left + now.duration_since(bucket.at).as_secs_f64() * rate).min((rate / 4.0).max(1.0));
        bucket.at = now;
        if bucket.left < 1.0 {
            return true;
        }
        bucket.left -= 1.0;
        false
    }

    /// Bills a call and says how it goes.
    fn answer(&self, call: &Call, fault: Fault) -> Outcome {
        let mut reply = call.question.reply(self.options.seed, &call.sha);
        match fault {
            Fault::Refusal => (reply.text, reply.finish) = (None, Finish::Refusal),
            Fault::Filtered => (reply.text, reply.finish) = (Some(String::new()), Finish::Filter),
            Fault::Length => reply.cut(),
            Fault::EchoKey => reply.text = Some(format!("your key is {}", call.key)),
            _ => {}
        }
        if fault.is_billed() {
            let Price { input, output } = self.options.price;
            self.meter.lock().billed += reply.input * input + reply.output * output;
        }
        if let Some(answer) = refused(fault, &call.key) {
            return Outcome::Whole(answer);
        }
        let whole = call.whole(&reply);
        let halves = |end| match call.question.stream {
            true => {
                let mut events = call.events(&reply);
                events.truncate(events.len() / 2);
                Outcome::Events(events, end)
            }
            false => Outcome::Half(Answer::json(200, &whole), end),
        };
        match fault {
            Fault::ResetBefore | Fault::ResetReady => Outcome::Nothing(End::Reset),
            Fault::Stall => Outcome::Nothing(End::Stall),
            Fault::ResetMid | Fault::StreamReset => halves(End::Reset),
            Fault::StallMid => halves(End::Stall),
            Fault::Short => halves(End::Close),
            Fault::StreamCut if call.question.stream => halves(End::Proper),
            Fault::StreamBadJson | Fault::StreamError if call.question.stream => {
                let mut events = call.events(&reply);
                events.truncate(events.len() / 2);
                events.push(match fault {
                    Fault::StreamBadJson => "data: {\"id\": \"chatcmpl\n\n".into(),
                    _ => format!("event: error\ndata: {}\n\n", error("server_error", "it broke")),
                });
                Outcome::Events(events, End::Proper)
            }
            Fault::CutJson | Fault::StreamCut | Fault::StreamBadJson | Fault::StreamError => {
                let mut answer = Answer::json(200, &whole);
                answer.body.truncate(answer.body.len() / 2);
                Outcome::Whole(answer)
            }
            Fault::Empty => Outcome::Whole(Answer { body: Vec::new(), ..Answer::json(200, &Value::Null) }),
            Fault::EmptyObject => Outcome::Whole(Answer::json(200, &json!({}))),
            Fault::NoChoices | Fault::NullContent => {
                Outcome::Whole(Answer::json(200, &call.without_text(whole, fault == Fault::NoChoices)))
            }
            _ if call.question.stream => Outcome::Events(call.events(&reply), End::Proper),
            _ => Outcome::Whole(Answer::json(200, &whole)),
        }
    }
}

/// How the request and its answer are shaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dialect {
    Chat,
    Messages,
}

/// A chat call that has come whole.
struct Call {
    dialect: Dialect,
    question: Question,
    sha: String,
    key: String,
}

impl Call {
    fn whole(&self, reply: &Reply) -> Value {
        let (model, id) = (&self.question.model, &self.sha[..12]);
        match self.dialect {
            Dialect::Chat => reply.chat(model, id),
            Dialect::Messages => reply.message(model, id),
        }
    }

    fn events(&self, reply: &Reply) -> Vec<String> {
        let (model, id) = (&self.question.model, &self.sha[..12]);
        match self.dialect {
            Dialect::Chat => reply.chat_events(model, id, self.question.wants_usage),
            Dialect::Messages => reply.message_events(model, id),
        }
    }

    fn without_text(&self, mut whole: Value, no_choices: bool) -> Value {
        match self.dialect {
            Dialect::Messages => whole["content"] = json!([]),
            Dialect::Chat if no_choices => whole["choices"] = json!([]),
            Dialect::Chat => whole["choices"][0]["message"]["content"] = Value::Null,
        }
        whole
    }
}

impl Reply {
    fn cut(&mut self) {
        if let Some(text) = &mut self.text {
            let end = text.floor_char_boundary(text.len() / 2);
            text.truncate(end);
        }
        self.finish = Finish::Length;
    }
}

/// Faults that are refusals of the request, or a page of somebody else's.
fn refused(fault: Fault, key: &str) -> Option<Answer> {
    Some(match fault {
        Fault::LimitSeconds => limited().with("retry-after", "1"),
        Fault::LimitMillis => limited().with("retry-after-ms", "2"),
        Fault::LimitDate => limited().with("retry-after", "Sun, 22 Nov 2026 09:00:00 GMT"),
        Fault::LimitLong => limited().with("retry-after", "121"),
        Fault::LimitFinal => limited().with("x-should-retry", "false"),
        Fault::LimitHeaders => limited()
            .with("x-ratelimit-limit-requests", "10")
            .with("x-ratelimit-remaining-requests", "0")
            .with("x-ratelimit-reset-requests", "20ms"),
        Fault::Quota => refusal(429, "insufficient_quota", "you exceeded your current quota"),
        Fault::Status(status) => refusal(status, "server_error", "the server is in trouble"),
        Fault::BadKey => bad_key(key),
        Fault::Forbidden => {
            refusal(403, "unsupported_country_region_territory", "not available in your region")
        }
        Fault::NoModel => refusal(404, "model_not_found", "the model does not exist"),
        Fault::Html => {
            page("<html><head><title>Sign in</title></head><body>Sign in to the proxy</body></html>".into())
        }
        Fault::HtmlKey => page(format!("<html><body>{} {key}</body></html>", "x".repeat(176))),
        _ => return None,
    })
}

fn page(html: String) -> Answer {
    Answer { status: 200, headers: Vec::new(), content_type: "text/html", body: html.into_bytes() }
}

fn limited() -> Answer {
    refusal(429, "rate_limit_exceeded", "rate limit reached for requests")
}

fn bad_key(key: &str) -> Answer {
    refusal(401, "invalid_api_key", &format!("incorrect API key provided: {key}"))
}

fn no_route(request: &Request) -> Answer {
    refusal(404, "unknown_url", &format!("unknown request URL: {} {}", request.method, request.path))
}

fn error(code: &str, message: &str) -> Value {
    json!({"error": {"message": message, "type": code, "param": null, "code": code}})
}

pub(crate) fn refusal(status: u16, code: &str, message: &str) -> Answer {
    Answer::json(status, &error(code, message))
}

/// What tells one body from another: all of it but how it is to be delivered.
fn sha_of(body: &Value) -> String {
    let mut body = body.clone();
    if let Some(map) = body.as_object_mut() {
        map.remove("stream");
        map.remove("stream_options");
    }
    hex(&Sha256::digest(body.to_string()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
