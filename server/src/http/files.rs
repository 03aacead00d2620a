//! `/files`: uploads are streamed to disk; a training or batch file that is not JSON lines is refused at once.

use std::{fmt, io::BufRead, path::Path, sync::Arc};

use axum::{
    Json,
    body::Body as HttpBody,
    extract::{Path as PathParam, Request, State},
    response::{IntoResponse, Response},
};
use hone::model::wire::{Deleted, ExpiresAfter, File, PURPOSES, Page};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use tempfile::NamedTempFile;
use tokio_util::io::ReaderStream;

use super::{
    extract::{Pairs, blocking},
    idempotency::{self, NewId},
    multipart::{self, Received},
    page,
};
use crate::{app::App, error::ApiError, ids};

/// Most bytes of a file that comes in one piece.
const FILE_LIMIT: u64 = 512 << 20;
/// Most bytes of a batch's input.
pub const BATCH_LIMIT: u64 = 200 << 20;
/// Bytes that are read at a time for a download.
const CHUNK: usize = 64 << 10;
/// Most bytes of one line of a training file.
const LINE_LIMIT: u64 = 32 << 20;
/// Seconds for which a batch's input is kept when nothing is said.
const BATCH_FILES_KEPT: i64 = 30 * 24 * 3600;

/// What a multipart upload consists of; its parts come in any order.
#[derive(Default)]
struct Form {
    content: Option<Received>,
    purpose: Option<String>,
    anchor: Option<String>,
    seconds: Option<String>,
}

pub async fn create(State(app): State<Arc<App>>, request: Request) -> Result<Response, ApiError> {
    let key = idempotency::key(request.headers())?;
    let form = receive(&app, multipart::open(request).await?).await?;
    idempotency::make(&app, "/files", key, form.fingerprint(), |id| take_in(&app, id, form)).await
}

async fn receive(app: &App, mut parts: axum::extract::Multipart) -> Result<Form, ApiError> {
    let mut form = Form::default();
    while let Some(field) = parts.next_field().await.map_err(multipart::broken)? {
        match field.name().unwrap_or_default() {
            "file" if form.content.is_some() => {
                return Err(ApiError::bad_param("file", "one upload holds one `file`, not several"));
            }
            "file" => {
                form.content = Some(multipart::file(field, app.files.incoming()?, FILE_LIMIT).await?);
            }
            "purpose" => form.purpose = Some(multipart::short(field, "purpose").await?),
            "expires_after[anchor]" => form.anchor = Some(multipart::short(field, "expires_after").await?),
            "expires_after[seconds]" => form.seconds = Some(multipart::short(field, "expires_after").await?),
            other => tracing::debug!(field = other, "ignoring an unknown part of an upload"),
        }
    }
    Ok(form)
}

impl Form {
    /// The multipart boundary is another one each time, so it is the parts that tell requests apart.
    fn fingerprint(&self) -> String {
        let word = |text: &Option<String>| text.clone().unwrap_or_default();
        let (hash, name) =
            self.content.as_ref().map(|r| (r.sha256.to_vec(), r.name.clone())).unwrap_or_default();
        let words = [name, word(&self.purpose), word(&self.anchor), word(&self.seconds)];
        let [name, purpose, anchor, seconds] = words.each_ref().map(|word| word.as_bytes());
        idempotency::fingerprint(&[&hash, name, purpose, anchor, seconds])
    }

    fn lifetime(&self) -> Result<Option<i64>, ApiError> {
        let (None, None) = (&self.anchor, &self.seconds) else {
            let seconds = self.seconds.as_ref().and_then(|text| text.parse().ok()).unwrap_or_default();
            let anchor = self.anchor.clone().unwrap_or_default();
            return lifetime(&ExpiresAfter { anchor, seconds }, "expires_after").map(Some);
        };
        Ok(None)
    }
}

/// Seconds for which a file is to be kept.
pub fn lifetime(after: &ExpiresAfter, param: &str) -> Result<i64, ApiError> {
    if after.anchor != "created_at" {
        return Err(ApiError::bad_param(param, format!("`{param}[anchor]` must be `created_at`")));
    }
    if !(3600..=2_592_000).contains(&after.seconds) {
        return Err(ApiError::bad_param(param, format!("`{param}[seconds]` must be from 3600 to 2592000")));
    }
    Ok(after.seconds)
}

pub fn check_purpose(purpose: &str) -> Result<(), ApiError> {
    if PURPOSES.contains(&purpose) {
        return Ok(());
    }
    let known = PURPOSES.join("`, `");
    Err(ApiError::bad_param("purpose", format!("`{purpose}` is not a purpose: use one of `{known}`")))
}

async fn take_in(app: &Arc<App>, id: NewId, form: Form) -> Result<File, ApiError> {
    let id = id.with("file-");
    if let Some(made) = app.files.get(&id)? {
        return Ok(made);
    }
    let lifetime = form.lifetime()?;
    let purpose = form.purpose.ok_or_else(|| ApiError::missing("purpose"))?;
    check_purpose(&purpose)?;
    let Received { content, name, bytes, .. } = form.content.ok_or_else(|| ApiError::missing("file"))?;
    keep(app, content, File::new(id, &name, &purpose, bytes, ids::now()), lifetime).await
}

/// Checks a file that has come whole and adds it to the others.
pub async fn keep(
    app: &Arc<App>,
    content: NamedTempFile,
    file: File,
    lifetime: Option<i64>,
) -> Result<File, ApiError> {
    if file.purpose == "batch" && file.bytes > BATCH_LIMIT {
        return Err(ApiError::too_large("a batch file may have 200 MB").param("file"));
    }
    let default = (file.purpose == "batch").then_some(BATCH_FILES_KEPT);
    let expires_at = lifetime.or(default).map(|seconds| file.created_at + seconds);
    let (app, file) = (app.clone(), File { expires_at, ..file });
    blocking(move || {
        if matches!(file.purpose.as_str(), "fine-tune" | "batch")
            && let Some(fault) = first_bad_line(content.path()).map_err(ApiError::internal)?
        {
            return Err(ApiError::bad(fault).param("file").code("invalid_file_format"));
        }
        app.files.add(content, &file)?;
        Ok(file)
    })
    .await
}

/// What keeps a file from being JSON lines, if anything does. Reads a line at a time.
fn first_bad_line(path: &Path) -> std::io::Result<Option<String>> {
    let mut reader = std::io::BufReader::new(std::fs::File::open(path)?);
    let (mut line, mut number, mut objects) = (Vec::new(), 0, 0);
    loop {
        line.clear();
        let read = std::io::Read::take(&mut reader, LINE_LIMIT).read_until(b'\n', &mut line)?;
        if read == 0 {
            let empty = "the file is empty: it needs one JSON object per line";
            return Ok((objects == 0).then(|| empty.into()));
        }
        number += 1;
        if read as u64 == LINE_LIMIT {
            return Ok(Some(format!("line {number} is longer than 32 MB")));
        }
        let text = line.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&line).trim_ascii();
        if text.is_empty() {
            continue;
        }
        if let Err(why) = check_object(text) {
            return Ok(Some(format!(
                "line {number} is not a JSON object ({why}); it starts with `{}`",
                start(text)
            )));
        }
        objects += 1;
    }
}

fn check_object(text: &[u8]) -> Result<(), String> {
    if !text.starts_with(b"{") {
        return Err("it does not start with a brace".into());
    }
    // There is one line, and its number stands before this.
    let why = |e: serde_json::Error| e.to_string().replace(" at line 1 column ", " at column ");
    serde_json::from_slice::<Sound>(text).map(drop).map_err(why)
}

/// A value that can be read, and is forgotten at once. `IgnoredAny` will not do: it passes over texts that are not UTF-8,
/// halves of surrogate pairs and values nested so deeply that nobody reads them, and the job would fail by them.
struct Sound;

impl<'de> Deserialize<'de> for Sound {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for Sound {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self, A::Error> {
        while items.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Self, A::Error> {
        while fields.next_entry::<Self, Self>()?.is_some() {}
        Ok(self)
    }
}

fn start(text: &[u8]) -> String {
    String::from_utf8_lossy(text).chars().take(40).collect()
}

pub async fn list(State(app): State<Arc<App>>, query: Pairs) -> Result<Json<Page<File>>, ApiError> {
    let mut files = app.files.list()?;
    if let Some(purpose) = query.get("purpose") {
        files.retain(|file| file.purpose == purpose);
    }
    page::cut(page::ordered(files, &query)?, &query, 10_000, 10_000).map(Json)
}

/// A file, or the 404 that says there is none.
pub fn find(app: &App, id: &str) -> Result<File, ApiError> {
    app.files.get(id)?.ok_or_else(|| ApiError::not_found(format!("there is no file `{id}`")).param("id"))
}

pub async fn get(
    State(app): State<Arc<App>>,
    PathParam(id): PathParam<String>,
) -> Result<Json<File>, ApiError> {
    find(&app, &id).map(Json)
}

pub async fn delete(
    State(app): State<Arc<App>>,
    PathParam(id): PathParam<String>,
) -> Result<Json<Deleted>, ApiError> {
    find(&app, &id)?;
    if let Some(job) = app.jobs.list()?.iter().find(|record| record.uses(&id)) {
        return Err(ApiError::bad(format!(
            "file `{id}` is in use by job `{}`: cancel that first",
            job.job.id
        )));
    }
    app.files.delete(&id)?;
    Ok(Json(Deleted { id, object: "file".into(), deleted: true }))
}

pub async fn content(
    State(app): State<Arc<App>>,
    PathParam(id): PathParam<String>,
) -> Result<Response, ApiError> {
    let file = find(&app, &id)?;
    let source = tokio::fs::File::open(app.files.content(&id)).await.map_err(ApiError::internal)?;
    let headers =
        [("content-type", "application/octet-stream".to_owned()), ("content-length", file.bytes.to_string())];
    Ok((headers, HttpBody::from_stream(ReaderStream::with_capacity(source, CHUNK))).into_response())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn fault(content: &[u8]) -> Option<String> {
        let file = NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        first_bad_line(file.path()).unwrap()
    }

    fn check(content: &[u8], expected: Option<&str>) {
        match (fault(content), expected) {
            (fault, None) => assert_eq!(fault, None),
            (fault, Some(words)) => {
                let fault = fault.unwrap_or_default();
                assert!(fault.contains(words), "{fault}");
            }
        }
    }

    #[test]
    fn files_that_are_not_json_lines_are_named_by_line() {
        check(b"{\"a\":1}\n{}\n", None);
        check("\u{feff}{}\r\n\r\n{}".as_bytes(), None);
        check(b"", Some("the file is empty"));
        check(b"\n\n", Some("the file is empty"));
        check(b"{}\nhello, world\n", Some("line 2"));
        check(b"{}\nhello, world\n", Some("`hello, world`"));
        check(b"{}\n{\"a\":\n", Some("line 2"));
        check(b"[1]\n", Some("line 1"));
        check(b"{} {}\n", Some("line 1"));
        check(b"\xff\xfe\n", Some("line 1"));
        let deep = format!("{{\"a\":{}", "[".repeat(100_000));
        check(deep.as_bytes(), Some("line 1"));
    }

    /// What the job would fail by is refused before there is one.
    #[test]
    fn what_nobody_can_read_is_no_json() {
        check(b"{}\n{\"a\":\"\xe9\"}\n", Some("line 2"));
        check(b"{\"\xe9\":1}\n", Some("line 1"));
        check(b"{\"a\":\"\\ud83e\"}\n", Some("line 1"));
        check(b"{\"a\":\"\\udd80\\ud83e\"}\n", Some("line 1"));
        check(b"{\"a\":\"\\ud83e\\udd80\"}\n", None);
        check(b"{\"a\":1e999}\n", Some("line 1"));
        let nested = |depth: usize| format!("{{}}\n{{\"a\":{}{}}}\n", "[".repeat(depth), "]".repeat(depth));
        check(nested(126).as_bytes(), None);
        check(nested(127).as_bytes(), Some("line 2"));
        check(
            nested(5000).as_bytes(),
            Some("line 2 is not a JSON object (recursion limit exceeded at column "),
        );
    }

    #[test]
    fn expiry_has_an_anchor_and_a_range() {
        let check = |anchor: &str, seconds: i64| {
            lifetime(&ExpiresAfter { anchor: anchor.into(), seconds }, "expires_after").ok()
        };
        assert_eq!(check("created_at", 3600), Some(3600));
        assert_eq!(check("created_at", 2_592_000), Some(2_592_000));
        assert_eq!(check("created_at", 3599), None);
        assert_eq!(check("created_at", 2_592_001), None);
        assert_eq!(check("now", 3600), None);
    }

    proptest! {
        /// What is accepted is JSON objects, line by line, and nothing else.
        #[test]
        fn accepted_files_are_json_objects(
            lines in prop::collection::vec(
                prop_oneof![
                    Just(b"{\"a\": [1]}".to_vec()),
                    Just(Vec::new()),
                    prop::collection::vec(any::<u8>(), 0..12),
                    // Nearly a text: an escape, or bytes that may be none of UTF-8's.
                    "\\PC{0,3}|\\\\u[d8cf]{4}".prop_map(|text| format!("{{\"{text}\":\"{text}\"}}").into_bytes()),
                    prop::collection::vec(any::<u8>(), 0..3).prop_map(|text| [b"{\"a\":\"", &text[..], b"\"}"].concat()),
                ],
                0..6,
            ),
        ) {
            let good = |line: &Vec<u8>| serde_json::from_slice::<Value>(line.trim_ascii()).is_ok_and(|v| v.is_object());
            let content = lines.join(&b'\n');
            let lines: Vec<Vec<u8>> = content.split(|b| *b == b'\n').map(<[u8]>::to_vec).collect();
            let full: Vec<_> = lines.iter().filter(|line| !line.trim_ascii().is_empty()).collect();
            let expected = !full.is_empty() && full.into_iter().all(good);
            prop_assert_eq!(fault(&content).is_none(), expected);
        }
    }
}
