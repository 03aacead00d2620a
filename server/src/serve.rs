//! Starting and stopping.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use hone::{
    cancel::Cancel,
    store::{Lock, LockError, read_text, write_atomic},
};
use tokio::{net::TcpListener, task::JoinHandle};

use crate::{
    app::App, batch, config::ServerConfig, connections, engine::Engine, error::ServeError, http,
    training::Supervisor,
};

/// How long a shutdown waits for requests that came before it.
const LAST_REQUESTS: Duration = Duration::from_secs(5);

/// Between two looks for what has expired.
const SWEEP_PAUSE: Duration = Duration::from_secs(60);

fn lock_path(root: &Path) -> PathBuf {
    root.join("server.lock")
}

fn address_path(root: &Path) -> PathBuf {
    root.join("address")
}

/// The base URL of the server that runs on a folder, if one does.
pub fn running(root: &Path) -> Option<String> {
    match take_lock(root) {
        Err(LockError::Busy { .. }) => read_text(&address_path(root)).ok().map(|url| url.trim().to_owned()),
        _ => None,
    }
}

/// A server that has its folder to itself and a port to listen on.
pub struct Server {
    _lock: Lock,
    config: ServerConfig,
    listener: TcpListener,
    url: String,
}

impl Server {
    /// Takes the folder.
    ///
    /// # Errors
    /// When another server runs on it, or it cannot be written.
    pub fn open(config: ServerConfig, listener: TcpListener) -> Result<Self, ServeError> {
        let lock = own(&config.root)?;
        if config.base_models().is_empty() {
            return Err(ServeError::NoModels);
        }
        let address = listener.local_addr()?;
        let url = format!("http://{address}/v1");
        write_atomic(&address_path(&config.root), format!("http://{}/v1", from_here(address)).as_bytes())?;
        Ok(Self { _lock: lock, config, listener, url })
    }

    /// For clients: `http://ADDRESS/v1`.
    pub fn base_url(&self) -> &str {
        &self.url
    }

    /// Serves until `shutdown`. Children in training go on; the next server takes them over.
    ///
    /// # Errors
    /// When the engine cannot start or the listener fails.
    pub async fn serve(self, shutdown: Cancel) -> Result<(), ServeError> {
        tracing::info!(url = self.url, "serving");
        let engine = Engine::start(&self.config, shutdown.clone())?;
        let supervisor = Supervisor::new(&self.config);
        let (loopback, limits) = (self.listener.local_addr()?.ip().is_loopback(), self.config.limits);
        let app = Arc::new(App::new(self.config, engine, supervisor.clone(), loopback));
        app.clean();
        let server = connections::serve(self.listener, http::router(app.clone()), limits, &shutdown);
        let batches = batch::work(app.clone(), http::answers_alone(app.clone()), &shutdown);
        // The engine cuts off the answers it was writing, so only a slow upload can still be there after a stop.
        let too_late = async {
            shutdown.cancelled().await;
            tokio::time::sleep(LAST_REQUESTS).await;
        };
        let requests = async {
            tokio::select! {
                () = server => {}
                () = too_late => {}
            }
        };
        tokio::join!(requests, supervisor.run(&shutdown), batches, sweep(&app, &shutdown));
        Ok(())
    }
}

/// Removes what expires, now and then.
async fn sweep(app: &Arc<App>, stop: &Cancel) {
    loop {
        let app = app.clone();
        match tokio::task::spawn_blocking(move || app.sweep()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "what has expired cannot be removed"),
            Err(error) => tracing::warn!(%error, "what has expired was not looked for"),
        }
        if tokio::time::timeout(SWEEP_PAUSE, stop.cancelled()).await.is_ok() {
            return;
        }
    }
}

/// Where this machine's own processes find a server that listens everywhere.
fn from_here(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// The lock, or who has it for longer than a moment: a process that is being started from this one shares our locks until
/// it runs its own program, and others may be looking.
fn take_lock(root: &Path) -> Result<Lock, LockError> {
    let mut looks = 0;
    loop {
        match Lock::take(&lock_path(root)) {
            Err(LockError::Busy { .. }) if looks < 10 => {
                looks += 1;
                std::thread::sleep(Duration::from_millis(20));
            }
            other => return other,
        }
    }
}

fn own(root: &Path) -> Result<Lock, ServeError> {
    take_lock(root).map_err(|error| match error {
        LockError::Busy { .. } => ServeError::Running {
            address: read_text(&address_path(root)).ok().map(|url| url.trim().to_owned()),
        },
        other => ServeError::Lock(other),
    })
}

/// A server in this process, on a port of its own on loopback. Dropping it stops it.
#[derive(Debug)]
pub struct LocalServer {
    /// For clients: `http://127.0.0.1:PORT/v1`.
    pub base_url: String,
    stop: Cancel,
    handle: Option<JoinHandle<Result<(), ServeError>>>,
}

impl LocalServer {
    /// Stops it and waits until it is gone.
    pub async fn stop(mut self) -> Result<(), ServeError> {
        self.stop.cancel();
        match self.handle.take() {
            Some(handle) => handle.await.map_err(|e| ServeError::Io(std::io::Error::other(e)))?,
            None => Ok(()),
        }
    }
}

impl Drop for LocalServer {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Starts a server in this process.
///
/// # Errors
/// When another server runs on the folder (its address is in the error), or no port can be had.
pub async fn spawn_local(config: ServerConfig) -> Result<LocalServer, ServeError> {
    spawn_at(config, "127.0.0.1:0").await
}

/// [`spawn_local`] at an address of its own, for whoever takes over from a server that ended while it was in use.
///
/// # Errors
/// When another server runs on the folder, or has the address.
pub async fn spawn_at(config: ServerConfig, address: &str) -> Result<LocalServer, ServeError> {
    let listen = |source| ServeError::Listen { address: address.into(), source };
    let server = Server::open(config, TcpListener::bind(address).await.map_err(listen)?)?;
    let (base_url, stop) = (server.url.clone(), Cancel::new());
    let handle = tokio::spawn(server.serve(stop.clone()));
    Ok(LocalServer { base_url, stop, handle: Some(handle) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_listens_everywhere_is_found_on_loopback() {
        let check = |bound: &str, found: &str| {
            assert_eq!(from_here(bound.parse().unwrap()).to_string(), found);
        };
        check("0.0.0.0:8642", "127.0.0.1:8642");
        check("[::]:8642", "[::1]:8642");
        check("127.0.0.1:1", "127.0.0.1:1");
        check("10.0.0.7:1", "10.0.0.7:1");
    }
}
