//! What fine-tuning asks of a client beyond plain calls: forms whose answer is a redirect, and uploads to signed addresses,
//! which get no key.

use std::{path::Path, time::Duration};

use reqwest::{
    Response, StatusCode, Url,
    header::{CONTENT_LENGTH, LOCATION},
    multipart, redirect,
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{
    Client, Endpoint, ModelError,
    answer::{describe, is_loopback, with_sources},
    builder,
    call::{Body, Call, Failed, Tries},
};
use crate::store::StoreError;

/// Redirects that an upload follows: storage moves buckets, but not in circles.
const MOST_HOPS: usize = 5;

/// What a form was answered with.
#[derive(Clone, Debug, PartialEq)]
pub enum Pointed {
    /// Redirected: where to, and what the header that was asked for says.
    To { url: String, header: String },
    /// It is there already (status 409), in the provider's words.
    Existing(Value),
}

impl Client {
    /// A client of another address of the same provider, cancelled with this one.
    pub fn at(&self, endpoint: Endpoint) -> Result<Self, ModelError> {
        Ok(Self::new(endpoint)?.cancelled_by(self.cancel.clone()))
    }

    /// Waits, unless it is cancelled.
    pub async fn pause(&self, wait: Duration) -> Result<(), ModelError> {
        self.sleep(wait).await
    }

    /// Posts something that may be posted again: JSON, or nothing.
    pub async fn post_at<T: DeserializeOwned>(
        &self,
        path: &[&str],
        body: Option<&Value>,
    ) -> Result<T, ModelError> {
        let body = body.map_or(Body::None, |value| Body::Json(value.clone()));
        self.fetch(Call::post(path, body)).await
    }

    /// Posts a form whose answer says where to go on, without going there. `header` is wanted from the answer.
    pub async fn post_form(
        &self,
        path: &[&str],
        fields: &[(&'static str, String)],
        header: &str,
    ) -> Result<Pointed, ModelError> {
        self.tried(async || self.form_once(path, fields, header).await).await
    }

    async fn form_once(
        &self,
        path: &[&str],
        fields: &[(&'static str, String)],
        header: &str,
    ) -> Result<Pointed, Failed> {
        let form =
            fields.iter().fold(multipart::Form::new(), |form, (name, value)| form.text(*name, value.clone()));
        let http = self.unfollowing().map_err(Failed::for_good)?;
        let request = http.post(self.url(path)).headers(self.headers.clone()).multipart(form);
        let response = request.send().await.map_err(|e| self.broken(e))?;
        let said = |name: &str| Some(response.headers().get(name)?.to_str().ok()?.to_owned());
        match (response.status(), said(LOCATION.as_str()), said(header)) {
            (StatusCode::CONFLICT, ..) => {
                let bytes = self.scrubber.bytes(response.bytes().await.map_err(|e| self.broken(e))?);
                let value = serde_json::from_slice(&bytes);
                value.map(Pointed::Existing).map_err(|e| Failed::for_good(self.garbled(describe(&bytes, &e))))
            }
            (status, Some(url), Some(header)) if status.is_redirection() => Ok(Pointed::To { url, header }),
            (status, ..) if status.is_redirection() || status.is_success() => {
                let why = format!("it does not say where the file goes (`Location` and `{header}`)");
                Err(Failed::for_good(self.garbled(why)))
            }
            _ => Err(self.refused(response).await),
        }
    }

    /// Puts a file to an address that the provider has signed. The key stays here; the file is read again for each try.
    pub async fn put_file(
        &self,
        url: &str,
        path: &Path,
        headers: &[(&'static str, String)],
    ) -> Result<(), ModelError> {
        self.tried(async || self.put_once(url, path, headers).await).await
    }

    async fn put_once(
        &self,
        url: &str,
        path: &Path,
        headers: &[(&'static str, String)],
    ) -> Result<(), Failed> {
        let http = self.unfollowing().map_err(Failed::for_good)?;
        let mut url = self.storage(url).map_err(Failed::for_good)?;
        for _ in 0..MOST_HOPS {
            let response = self.sent_to(&http, url.clone(), path, headers).await?;
            if !response.status().is_redirection() {
                return if response.status().is_success() {
                    Ok(())
                } else {
                    Err(self.refused(response).await)
                };
            }
            let next =
                response.headers().get(LOCATION).and_then(|next| next.to_str().ok()).unwrap_or_default();
            let next = url.join(next).map_err(|e| Failed::for_good(self.garbled(e.to_string())))?;
            url = self.storage(next.as_str()).map_err(Failed::for_good)?;
        }
        Err(Failed::for_good(self.garbled("the upload is sent from address to address")))
    }

    async fn sent_to(
        &self,
        http: &reqwest::Client,
        url: Url,
        path: &Path,
        headers: &[(&'static str, String)],
    ) -> Result<Response, Failed> {
        let unread = |e| Failed::for_good(StoreError::new("read", path, e).into());
        let file = tokio::fs::File::open(path).await.map_err(unread)?;
        let length = file.metadata().await.map_err(unread)?.len();
        let request = http.put(url).header(CONTENT_LENGTH, length);
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, value));
        request.body(file).send().await.map_err(|e| self.broken(e))
    }

    /// An address for uploads: data goes over TLS, or does not leave this machine.
    fn storage(&self, url: &str) -> Result<Url, ModelError> {
        let url =
            Url::parse(url).map_err(|e| self.garbled(format!("the upload's address is no URL: {e}")))?;
        if url.scheme() == "https" || (url.scheme() == "http" && is_loopback(&url) && self.is_local()) {
            return Ok(url);
        }
        let host = url.host_str().unwrap_or("nowhere");
        Err(self.garbled(format!("it wants the upload at `{}://{host}`, without TLS", url.scheme())))
    }

    /// A client that goes where it is told and nowhere else.
    fn unfollowing(&self) -> Result<reqwest::Client, ModelError> {
        let endpoint = self.endpoint();
        let builder = builder(endpoint, self.is_local()).read_timeout(endpoint.timeout);
        builder.redirect(redirect::Policy::none()).build().map_err(|e| ModelError::Endpoint(with_sources(&e)))
    }

    /// Tries something that may be done twice until it succeeds or the rules say stop.
    async fn tried<T>(&self, attempt: impl AsyncFn() -> Result<T, Failed>) -> Result<T, ModelError> {
        let mut tries = Tries::default();
        loop {
            let tried = tokio::select! {
                () = self.cancel.cancelled() => return Err(ModelError::Cancelled),
                tried = attempt() => tried,
            };
            match tried {
                Ok(value) => return Ok(value),
                Err(failed) => self.wait_to_retry(failed, &mut tries).await?,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uploads_go_over_tls_or_stay_here() {
        let check = |base: &str, url: &str, fine: bool| {
            let client = Client::new(Endpoint::new("t", base)).unwrap();
            assert_eq!(client.storage(url).is_ok(), fine, "{base} {url}");
        };
        check("https://api.example.com/v1", "https://bucket.example.com/a", true);
        check("https://api.example.com/v1", "http://bucket.example.com/a", false);
        check("https://api.example.com/v1", "http://127.0.0.1/a", false);
        check("http://127.0.0.1:1/v1", "http://127.0.0.1:2/a", true);
        check("http://127.0.0.1:1/v1", "file:///etc/passwd", false);
        check("http://127.0.0.1:1/v1", "not an address", false);
    }
}
