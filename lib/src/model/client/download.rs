//! Large files: streamed to disk, gone on with where a connection broke.

use std::path::Path;

use reqwest::{
    StatusCode,
    header::{CONTENT_RANGE, RANGE},
};
use tokio::{
    fs::{File, OpenOptions},
    io::AsyncWriteExt,
};

use super::{
    Client, ModelError,
    call::{Failed, Tries},
    retry::Failure,
};
use crate::store::StoreError;

/// A file to download.
#[derive(Clone, Copy, Debug)]
pub struct Download<'a> {
    /// Below the endpoint's address.
    pub path: &'a [&'a str],
    /// Where the bytes go. What is there already is taken for the beginning of the same file.
    pub into: &'a Path,
    /// Bytes of the whole file.
    pub size: u64,
}

impl Client {
    /// Downloads what is missing of a file, telling `on_bytes` how many bytes are there. A connection that breaks is taken up
    /// again where it broke; tries are counted anew whenever bytes have come.
    ///
    /// # Errors
    /// As other calls; what has come so far stays in the file.
    pub async fn download(
        &self,
        download: Download<'_>,
        on_bytes: &mut (dyn FnMut(u64) + Send),
    ) -> Result<(), ModelError> {
        let mut tries = Tries::default();
        loop {
            let before = length(download.into).await?;
            if before == download.size {
                return Ok(());
            }
            let tried = tokio::select! {
                () = self.cancel.cancelled() => return Err(ModelError::Cancelled),
                tried = self.receive(download, before, on_bytes) => tried,
            };
            let failed = match tried {
                Ok(()) => return Ok(()),
                Err(failed) => failed,
            };
            if length(download.into).await? > before {
                tries = Tries::default();
            }
            self.wait_to_retry(failed, &mut tries).await?;
        }
    }

    /// One connection's worth of a file that has `have` bytes.
    async fn receive(
        &self,
        download: Download<'_>,
        have: u64,
        on_bytes: &mut (dyn FnMut(u64) + Send),
    ) -> Result<(), Failed> {
        let mut request = self.http.get(self.url(download.path)).headers(self.headers.clone());
        if have > 0 {
            request = request.header(RANGE, format!("bytes={have}-"));
        }
        let mut response = request.send().await.map_err(|e| self.broken(e))?;
        if !response.status().is_success() {
            return Err(self.refused(response).await);
        }
        let goes_on = response.status() == StatusCode::PARTIAL_CONTENT;
        let from = response.headers().get(CONTENT_RANGE).and_then(|range| range.to_str().ok());
        if goes_on && !from.is_some_and(|range| range.starts_with(&format!("bytes {have}-"))) {
            return Err(Failed::for_good(
                self.garbled("it sends another part of the file than was asked for"),
            ));
        }
        // A server that cannot go on sends the whole.
        let (mut file, mut total) = match goes_on {
            true => (open(download.into, true).await?, have),
            false => (open(download.into, false).await?, 0),
        };
        let fail = |e| Failed::for_good(StoreError::new("write", download.into, e).into());
        while let Some(chunk) = response.chunk().await.map_err(|e| self.broken(e))? {
            total += chunk.len() as u64;
            if total > download.size {
                let why = format!("it sends more than the {} bytes that the file has", download.size);
                return Err(Failed::for_good(self.garbled(why)));
            }
            file.write_all(&chunk).await.map_err(fail)?;
            on_bytes(total);
        }
        file.flush().await.map_err(fail)?;
        file.sync_all().await.map_err(fail)?;
        match total == download.size {
            true => Ok(()),
            false => {
                let error =
                    self.garbled(format!("the file breaks off after {total} of {} bytes", download.size));
                Err(Failed { error, failure: Failure::default(), in_doubt: false, garbled: false })
            }
        }
    }
}

async fn open(path: &Path, append: bool) -> Result<File, Failed> {
    let mut options = OpenOptions::new();
    options.create(true).write(true).append(append).truncate(!append);
    options.open(path).await.map_err(|e| Failed::for_good(StoreError::new("write", path, e).into()))
}

async fn length(path: &Path) -> Result<u64, ModelError> {
    match tokio::fs::metadata(path).await {
        Ok(meta) => Ok(meta.len()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(0),
        Err(e) => Err(StoreError::new("read", path, e).into()),
    }
}
